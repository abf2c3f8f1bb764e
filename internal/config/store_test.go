package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Whatever is shown of the store has no password in it, however it was written.
func TestStoreHidesPasswords(t *testing.T) {
	for in, want := range map[string]string{
		"sqlite":                                  "sqlite",
		"postgres://u@h/d":                        "postgres://u@h/d",
		"postgres://u:geheim@h/d":                 "postgres://u@h/d",
		"postgres://u:geheim@h:1,i:2/d?a=b":       "postgres://u@h:1,i:2/d?a=b",
		"postgresql://u:geheim@h":                 "postgresql://u@h",
		"postgres://h/d?user=u":                   "postgres://h/d?user=u",
		"postgres://h/d?password=geheim":          "postgres://h/d",
		"postgres://h?a=b&sslpassword=geheim&c=d": "postgres://h?a=b&c=d",
		"postgres://u:ge@heim@h/d":                "postgres://u@h/d",
		"postgres://u:ge/geheim@h/d":              "postgres://u@h/d",
		"postgres://u:ge@he/geheim@h/d":           "postgres://u@h/d",
		"postgres://u:ge?geheim@h/d":              "postgres://u@h/d",
		"postgres://u:ge@im?geheim@h/d":           "postgres://u@h/d",
		"postgres://u:ge#geheim@h/d":              "postgres://u@h/d",
		"host=h password=geheim user=u":           "host=h user=u",
		"host=h password = geheim user=u":         "host=h user=u",
		"host=h PASSWORD='a geheim' user=u":       "host=h user=u",
		`host=h password='a\' geheim' user=u`:     "host=h user=u",
		`host=h password=a\ geheim user=u`:        "host=h user=u",
		"host=h password='a geheim":               "host=h",
		"host=h sslpassword=geheim":               "host=h",
		"password=geheim host=h":                  " host=h",
	} {
		c := Default()
		c.Store = Store(in)
		if got := c.Store.String(); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
		if got := c.Store.DSN(); got != in {
			t.Errorf("the driver gets %q, want %q", got, in)
		}
		var b bytes.Buffer
		if err := Print(&b, c); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%v %+v %#v %s %q", c, c, c, c.Store, c.Store)
		if strings.Contains(b.String(), "geheim") {
			t.Errorf("%q: printed with its password", in)
		}
	}
}

func TestStoreErrors(t *testing.T) {
	for in, want := range map[string]string{
		"sqlite":                  "",
		"postgres://u:geheim@h/d": "",
		"host=h dbname=d":         "",
		"user=u":                  "",
		"service=mail":            "",
		"":                        "want",
		"postgres":                "want",
		"postgres://":             "no server",
		"mysql://u:geheim@h/d":    `"mysql" is not`,
		"password=geheim":         "want",
	} {
		c := Default()
		c.Store = Store(in)
		err := c.Validate()
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim")) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}
