// Package e2e holds the tests of the program as a whole: they build the binary,
// run it as a process of its own, and look at it from outside only.
package e2e
