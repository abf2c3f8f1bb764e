package config

import (
	"errors"
	"regexp"
	"strings"
)

// Store says where mail is kept: "sqlite", or how to reach a PostgreSQL, as a
// URL (postgres://user@host/database) or as keywords (host=… user=…). Whatever
// is printed of it, by fmt too, has no password in it.
type Store string

// SQLite is a file in the data folder.
const SQLite Store = "sqlite"

// DSN is what a driver needs, with the password if there is one. It is not to be
// shown to anybody.
func (s Store) DSN() string { return string(s) }

// Shared tells whether several nodes can have the store.
func (s Store) Shared() bool { return s != SQLite }

// String leaves out passwords.
func (s Store) String() string {
	scheme, rest, isURL := strings.Cut(string(s), "://")
	if !isURL {
		return passwordWord.ReplaceAllString(string(s), "")
	}
	where, query, asked := strings.Cut(rest, "?")
	authority := where
	if i := strings.IndexAny(where, "/#"); i >= 0 {
		authority = where[:i]
	}
	at := strings.LastIndexByte(authority, '@')
	if strings.Contains(rest[len(authority):], "@") {
		// A password that was not encoded as URLs want it: rather too much is
		// left out than a part of it is shown.
		where, query, asked = rest, "", false
		at = strings.LastIndexByte(rest, '@')
	}
	if at >= 0 {
		user, _, _ := strings.Cut(where[:at], ":")
		where = user + where[at:]
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(part, "=")
		if part != "" && !strings.Contains(strings.ToLower(key), "password") {
			kept = append(kept, part)
		}
	}
	out := scheme + "://" + where
	if asked && len(kept) > 0 {
		out += "?" + strings.Join(kept, "&")
	}
	return out
}

// passwordWord is password=… and sslpassword=… among keywords, as libpq writes
// them (https://www.postgresql.org/docs/current/libpq-connect.html).
var passwordWord = regexp.MustCompile(`(?i)\s*\b(ssl)?password\s*=\s*('(\\.|[^'\\])*('|$)|(\\.|[^\s\\])*)`)

// GoString is String: no verb of fmt shows more.
func (s Store) GoString() string { return s.String() }

// MarshalText writes what String does.
func (s Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// keyword begins a DSN that is written as keywords.
var keyword = regexp.MustCompile(`(^|\s)(host|hostaddr|service|dbname|user)\s*=`)

// check says what is wrong with s, without showing a part of it that may be a
// password.
func (s Store) check() error {
	scheme, rest, isURL := strings.Cut(string(s), "://")
	switch {
	case s == SQLite:
		return nil
	case isURL && (scheme == "postgres" || scheme == "postgresql"):
		if rest == "" {
			return errors.New(`"postgres://" says no server; want one such as "postgres://postrider@db.example.com/postrider"`)
		}
		return nil
	case !isURL && keyword.MatchString(string(s)):
		return nil
	case isURL:
		return errors.New(quote(scheme) + ` is not a kind of store; want "sqlite", or a PostgreSQL such as "postgres://postrider@db.example.com/postrider"`)
	default:
		return errors.New(quote(s.String()) + ` is not known; want "sqlite", or a PostgreSQL such as "postgres://postrider@db.example.com/postrider"`)
	}
}
