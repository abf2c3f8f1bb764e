package lab

import (
	"context"
	"fmt"
	"strings"

	"postrider/internal/api"
	"postrider/internal/domain"
)

// OwnDomain brings a domain into the default account as its owner would: it adds
// it, publishes what the answer says, with what the relay's own zone must hold, in
// the relay's DNS, and has that checked.
func (r *Relay) OwnDomain(ctx context.Context, name string) (added api.PlannedDomain, checked api.Domain, err error) {
	if err := r.API.Post(ctx, "/v1/domains", map[string]string{"name": name}, &added); err != nil {
		return added, checked, fmt.Errorf("add domain: %w", err)
	}
	records := []string{r.Config.Hostname + ". 60 IN A 127.0.0.1"} // where mail leaves from
	for _, rec := range added.Plan.Records {
		value := rec.Value + "."
		if rec.Type == "TXT" {
			value = domain.Quote(rec.Value)
		}
		records = append(records, fmt.Sprintf("%s. 60 IN %s %s", rec.Name, rec.Type, value))
	}
	var own api.OwnZone
	if err := r.API.Get(ctx, "/v1/zone", nil, &own); err != nil {
		return added, checked, fmt.Errorf("ask for the relay's own zone: %w", err)
	}
	for line := range strings.Lines(own.Zone) {
		if line = strings.TrimSpace(line); line != "" && line[0] != ';' {
			name, _, _ := strings.Cut(line, " ")
			r.DNS.Remove(name) // it may be there from the domain before
			records = append(records, line)
		}
	}
	if err := r.DNS.Add(records...); err != nil {
		return added, checked, fmt.Errorf("publish records: %w", err)
	}
	if err := r.API.Post(ctx, "/v1/domains/"+name+"/check", nil, &checked); err != nil {
		return added, checked, fmt.Errorf("check domain: %w", err)
	}
	return added, checked, nil
}
