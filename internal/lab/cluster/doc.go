// Package cluster holds the tests of several nodes on one PostgreSQL: processes
// of the program, a real server, and a receiver that notes each delivery. They
// are killed, cut off and upgraded under load, and at the end what clients were
// told is compared with what arrived.
package cluster
