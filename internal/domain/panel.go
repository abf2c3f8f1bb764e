package domain

import (
	"fmt"
	"slices"
	"strings"
)

// Panel is how one DNS provider asks for a record, in its own words.
type Panel struct {
	Provider string   `json:"provider"`
	Servers  []string `json:"-"` // what its name servers end in, or have in them where it begins with "*"
	Where    string   `json:"where" doc:"Where in the panel records are"`
	Name     string   `json:"name_field" doc:"What the panel calls a record's name"`
	Value    string   `json:"value_field" doc:"What it calls a record's value"`
	Whole    bool     `json:"whole_name" doc:"Names are wanted whole, not without the zone"`
	Apex     string   `json:"apex" doc:"What stands for the zone itself"`
	TXT      string   `json:"txt,omitempty" doc:"Trap with texts"`
	CNAME    string   `json:"cname,omitempty" doc:"Trap with aliases"`
}

// Traps that several panels have.
const (
	appends  = "The panel appends the domain by itself: with the whole name it would stand there twice."
	noQuotes = "Paste the value without quotes."
	finalDot = "End the target with a dot, or the zone is appended to it."
)

// panels know the words of DNS providers by their name servers.
func panels() []Panel {
	return []Panel{
		{"Cloudflare", []string{".ns.cloudflare.com"}, "DNS › Records", "Name", "Content", false, "@", noQuotes + " Cloudflare adds them itself.",
			"Set Proxy status to \"DNS only\" (grey cloud): proxied, the alias can't be seen from outside."},
		{"Amazon Route 53", []string{"*.awsdns-"}, "Hosted zones › the zone › Create record", "Record name", "Value", false, "",
			"Put the value in double quotes; cut one that is longer than 255 characters into several strings, each in quotes, with a space between.",
			"Choose record type CNAME, not Alias."},
		{"Google Cloud DNS or Squarespace Domains", []string{".googledomains.com"}, "Google Cloud: Cloud DNS › the zone › Add standard; Squarespace: Domains › DNS › Custom records",
			"DNS name / Host", "Data", false, "@", "In Google Cloud, put a value with spaces in double quotes, cut into strings of 255 characters at most.", "In Google Cloud: " + finalDot},
		{"Squarespace", []string{".squarespacedns.com"}, "Domains › the domain › DNS › Custom records", "Host", "Data", false, "@", noQuotes, appends},
		{"GoDaddy", []string{".domaincontrol.com"}, "My Products › DNS › Add new record", "Name", "Value", false, "@", noQuotes + " " + appends, appends},
		{"Namecheap", []string{".registrar-servers.com"}, "Domain List › Manage › Advanced DNS › Host records", "Host", "Value", false, "@", appends,
			appends + " With \"Namecheap BasicDNS\" only; mail settings may have records of their own."},
		{"IONOS", []string{"*.ui-dns."}, "Domains & SSL › the domain › DNS › Add record", "Host name", "Value", false, "@", noQuotes + " " + appends, "Switch off a mail or web service that IONOS has set for the same host name first."},
		{"OVHcloud", []string{".ovh.net", ".ovh.ca", ".anycast.me"}, "Web Cloud › Domain names › DNS zone › Add an entry", "Sub-domain", "Value", false, "",
			"Use the type TXT, not the SPF, DKIM or DMARC assistants, which write the value anew.", finalDot},
		{"Hetzner", []string{".ns.hetzner.com", ".ns.hetzner.de", ".your-server.de", ".first-ns.de", ".second-ns.de", ".second-ns.com"}, "DNS › the zone › Records", "Name", "Value", false, "@",
			"Hetzner puts quotes round a value by itself, and cuts a long one.", finalDot},
		{"Gandi", []string{".gandi.net"}, "Domain › DNS records › Add record", "Name", "Text value / Hostname", false, "@", "Gandi puts the quotes itself.", finalDot},
		{"DigitalOcean", []string{".digitalocean.com"}, "Networking › Domains › the domain", "Hostname", "Value", false, "@", noQuotes, finalDot},
		{"Azure DNS", []string{"*.azure-dns."}, "DNS zones › the zone › Record sets › Add", "Name", "Value / Alias", false, "@",
			"All texts of one name stand in one record set: add a line to the one that is there.", "Alias record set: No."},
		{"Linode (Akamai)", []string{".linode.com"}, "Domains › the domain", "Hostname", "Value", false, "", noQuotes, appends},
		{"Vultr", []string{".vultr.com"}, "Products › DNS › the domain", "Name", "Data", false, "", "Put the value in double quotes.", appends},
		{"DNSimple", []string{".dnsimple.com", ".dnsimple-edge.net", ".dnsimple-edge.org"}, "the domain › DNS › Manage › Add record", "Name", "Content", false, "", "Leave the name empty for the domain itself.", "Choose CNAME, not ALIAS."},
		{"Porkbun", []string{".porkbun.com"}, "Domain Management › DNS", "Host", "Answer", false, "", appends, appends},
		{"Name.com", []string{".name.com"}, "My Domains › the domain › DNS Records", "Host", "Answer", false, "", appends, appends},
		{"Hover", []string{".hover.com"}, "Your domains › DNS › Add a record", "Hostname", "Value", false, "@", appends, appends},
		{"Wix", []string{".wixdns.net"}, "Domains › Manage DNS records", "Host name", "Value", false, "", appends, appends + " A single text record of each name may be all that the panel takes."},
		{"Infomaniak", []string{".infomaniak.ch", ".infomaniak.com"}, "Domains › DNS zone › Add a record", "Source", "Target", false, "", noQuotes, appends},
		{"netcup", []string{".netcup.net"}, "Domains › DNS", "Host", "Destination", false, "@", noQuotes, finalDot},
		{"STRATO", []string{".rzone.de"}, "Domains › DNS › TXT and CNAME records", "Prefix", "Value", false, "", "Texts have a form of their own under \"TXT and CNAME records\".", "A subdomain must be made first before it can be an alias."},
		{"INWX", []string{".inwx.de", ".inwx.eu", ".inwx.com"}, "Nameserver › the domain", "Name", "Value", false, "", noQuotes, "Targets are written without a dot at the end."},
		{"Vercel", []string{".vercel-dns.com"}, "Domains › the domain › DNS Records", "Name", "Value", false, "@", noQuotes, appends},
	}
}

// PanelOf finds the panel by a zone's name servers. A provider that is not known
// gives the zero Panel.
func PanelOf(servers []string) Panel {
	for _, p := range panels() {
		for _, s := range servers {
			s = "." + strings.ToLower(strings.TrimSuffix(s, "."))
			if slices.ContainsFunc(p.Servers, func(mark string) bool {
				if part, anywhere := strings.CutPrefix(mark, "*"); anywhere {
					return strings.Contains(s, part)
				}
				return strings.HasSuffix(s, mark)
			}) {
				return p
			}
		}
	}
	return Panel{}
}

// How says how a record is entered there, in one or two sentences. The value
// stands beside them as what is expected.
func (p Panel) How(r Record, zone string) string {
	if p.Provider == "" {
		return fmt.Sprintf("Publish a %s record %s with the value that is expected. Most panels want the name without the zone: %s.", r.Type, r.Name, relative(r.Name, zone))
	}
	name := r.Name
	if !p.Whole {
		if name = relative(r.Name, zone); name == "@" {
			name = p.Apex
		}
	}
	named := fmt.Sprintf("%s %q", p.Name, name)
	if name == "" {
		named = fmt.Sprintf("leave %s empty", p.Name)
	}
	text := fmt.Sprintf("At %s, under %s: type %s, %s, and as %s what is expected.", p.Provider, p.Where, r.Type, named, p.Value)
	if trap := p.trap(r.Type); trap != "" {
		text += " " + trap
	}
	return text
}

func (p Panel) trap(typ string) string {
	if typ == "CNAME" {
		return p.CNAME
	}
	return p.TXT
}
