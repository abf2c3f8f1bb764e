package metrics

import "testing"

func TestSiteClass(t *testing.T) {
	for site, want := range map[string]string{
		"google.com":                    "google",
		"google.com+googlemail.com":     "google",
		"gmail.com":                     "google",
		"outlook.com":                   "microsoft",
		"mx.microsoft":                  "microsoft",
		"contoso-com.v-v1.mx.microsoft": "microsoft",
		"hotmail.com":                   "microsoft",
		"yahoodns.net":                  "yahoo",
		"aol.com":                       "yahoo",
		"icloud.com":                    "apple",
		"google.com+outlook.com":        "other", // nobody can say which
		"google.com+example.net":        "other",
		"example.net":                   "other",
		"notgoogle.com":                 "other",
		"google.com.example.net":        "other",
		"smtp.provider.example:587":     "other",
		"":                              "other",
		"+":                             "other",
	} {
		if got := SiteClass(site); got != want {
			t.Errorf("%q is %s, want %s", site, got, want)
		}
	}
}
