package metrics

import "strings"

// The classes of sites. All that is not one of the large providers is other;
// where nobody knows yet who receives, it is other too.
const (
	classGoogle    = "google"
	classMicrosoft = "microsoft"
	classYahoo     = "yahoo"
	classApple     = "apple"
	classOther     = "other"
)

var siteClasses = [...]string{classGoogle, classMicrosoft, classYahoo, classApple, classOther}

// SiteClass says which large provider a site is, by its name: the registrable
// domain of its MX hosts, as deliver has it, joined by "+" where there are
// several. It takes a recipients' domain too, for mail whose MX has not been
// looked up: then only the providers' own domains are known.
func SiteClass(site string) string {
	class := ""
	for part := range strings.SplitSeq(site, "+") {
		c := providerOf(part)
		if class != "" && c != class {
			return classOther
		}
		class = c
	}
	return class
}

func providerOf(name string) string {
	switch name {
	case "google.com", "googlemail.com", "gmail.com":
		return classGoogle
	case "outlook.com", "mx.microsoft", "hotmail.com", "live.com", "msn.com", "office365.us",
		"hotmail.co.uk", "hotmail.fr", "hotmail.de", "hotmail.it", "hotmail.es", "live.co.uk", "live.fr", "live.nl",
		"outlook.de", "outlook.fr", "outlook.es":
		return classMicrosoft
	case "yahoodns.net", "yahoo.com", "ymail.com", "rocketmail.com", "aol.com", "aim.com",
		"yahoo.co.uk", "yahoo.fr", "yahoo.de", "yahoo.it", "yahoo.es", "yahoo.ca", "yahoo.co.in", "yahoo.com.br":
		return classYahoo
	case "icloud.com", "me.com", "mac.com", "apple.com":
		return classApple
	}
	// Microsoft's newer MX hosts are below mx.microsoft, each in a zone of
	// its own.
	if strings.HasSuffix(name, ".mx.microsoft") {
		return classMicrosoft
	}
	return classOther
}
