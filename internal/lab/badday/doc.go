// Package badday holds the tests of days on which the machine fails the relay:
// the disk is full, the data folder is read-only, there are no files left to
// open. They run the program as a process, on file systems of their own.
package badday
