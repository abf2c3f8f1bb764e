// Command dialect reads SQL statements, each ended by a line ";;", and tells which
// of them CockroachDB's own parser does not take. From the folder store/postgres:
//
//	go test -run TestStore -statements /tmp/statements
//	cd testdata/dialect && go run . /tmp/statements
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/cockroachdb-parser/pkg/sql/parser"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dialect FILE")
		os.Exit(2)
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	statements, refused := strings.Split(string(text), "\n;;\n"), 0
	for _, s := range statements {
		// Package postgres leaves this out where the database does not know it.
		if _, err := parser.Parse(strings.ReplaceAll(s, ` collate "C"`, "")); err != nil {
			refused++
			fmt.Printf("%s\n  %v\n", s, err)
		}
	}
	fmt.Printf("%d statements, %d refused\n", len(statements), refused)
	if refused > 0 {
		os.Exit(1)
	}
}
