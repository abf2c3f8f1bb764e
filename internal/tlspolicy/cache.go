package tlspolicy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"postrider/internal/dns"
)

// TXT looks up records; dns.Resolver does. Its error is a *dns.Error.
type TXT interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Storage keeps policies over restarts, and for all nodes. Both methods may fail
// without harm to the mail.
type Storage interface {
	// Load gives what was saved by that name; nil: nothing was.
	Load(ctx context.Context, name string) ([]byte, error)
	Save(ctx context.Context, name string, data []byte) error
}

const (
	// recheck is how long what is known of a domain is used before its record is
	// looked up again, from the resolver's cache as long as that keeps it.
	recheck = time.Minute
	// fetchAgain is how long a policy that could not be fetched is not tried
	// again (RFC 8461 section 3.3 asks for five minutes at least).
	fetchAgain = 5 * time.Minute
	// renew is the age at which a policy that is in use is fetched anew, whatever
	// its id, or half its life, if that is shorter (RFC 8461 section 10.2: to do
	// so daily makes it hard to keep a policy from being renewed).
	renew      = 24 * time.Hour
	maxEntries = 20_000
	maxWaiting = 100 // renewals
	renewers   = 4
)

// Cache knows the MTA-STS policies of domains. Once it has seen a policy, it
// holds for its whole max_age, whatever becomes of the record or the web server
// (RFC 8461 section 5.1).
type Cache struct {
	txt     TXT
	fetcher *Fetcher
	storage Storage
	log     *slog.Logger
	renewal chan string

	mu      sync.Mutex
	entries map[string]*entry
}

// entry is what is known of one domain. busy is held while it is found out.
type entry struct {
	busy    chan struct{}
	loaded  bool // the storage was asked
	checked time.Time
	found   Found
	failed  time.Time // when a fetch failed last
	failID  string    // for this id
}

// Found is what there is of a domain's policy.
type Found struct {
	Policy *STS // nil: none
	// Trouble is why the policy that the domain seems to have is not there, or
	// not renewed; nil: none.
	Trouble *Failure
}

// NewCache makes a cache. storage may be nil.
func NewCache(txt TXT, f *Fetcher, storage Storage, log *slog.Logger) *Cache {
	return &Cache{txt: txt, fetcher: f, storage: storage, log: log, renewal: make(chan string, maxWaiting), entries: map[string]*entry{}}
}

// Find gives the policy of a domain, which comes as A-labels in lower case. The
// error is that of ctx.
func (c *Cache) Find(ctx context.Context, domain string) (Found, error) {
	e := c.entry(domain)
	select {
	case e.busy <- struct{}{}:
		defer func() { <-e.busy }()
	case <-ctx.Done():
		return Found{}, ctx.Err()
	}
	now := time.Now()
	if age := now.Sub(e.checked); age < 0 || age >= recheck || e.found.Policy != nil && !now.Before(e.found.Policy.Expires()) {
		if err := c.check(ctx, domain, e); err != nil {
			return Found{}, err
		}
	}
	return e.found, nil
}

func (c *Cache) entry(domain string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[domain]
	if e != nil {
		return e
	}
	if len(c.entries) >= maxEntries {
		c.forget()
	}
	e = &entry{busy: make(chan struct{}, 1)}
	c.entries[domain] = e
	return e
}

// forget drops half of the entries, whichever. Policies are in the storage yet.
func (c *Cache) forget() {
	for domain := range c.entries {
		if len(c.entries) <= maxEntries/2 {
			return
		}
		delete(c.entries, domain)
	}
}

// check finds out what holds for a domain now. e.busy is held.
func (c *Cache) check(ctx context.Context, domain string, e *entry) error {
	if !e.loaded {
		p, err := c.load(ctx, domain)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.found.Policy, e.loaded = p, err == nil
	}
	records, err := c.txt.TXT(ctx, "_mta-sts."+domain)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	if p := e.found.Policy; p != nil && !now.Before(p.Expires()) {
		e.found.Policy = nil
	}
	e.found.Trouble, e.checked = nil, now
	id := ""
	var lookup *dns.Error
	switch {
	case err == nil:
		if id, err = parseRecord(records); err != nil && !errors.Is(err, errNoRecord) {
			e.found.Trouble = failure(STSInvalid, "%v", err)
		}
	case errors.As(err, &lookup) && lookup.Kind == dns.Temporary:
		c.log.Debug("the MTA-STS record can't be looked up", "domain", domain, "err", err)
	}
	p := e.found.Policy
	switch {
	case id == "":
		return nil
	case p != nil && p.ID == id:
		// An age below nothing comes of a clock that was set back.
		if age := now.Sub(p.Fetched); age < 0 || age > min(renew, p.MaxAge/2) {
			c.wantRenewal(domain)
		}
		return nil
	}
	// Another node may have fetched it.
	if other, _ := c.load(ctx, domain); other != nil && other.ID == id {
		e.found.Policy = other
		return nil
	}
	return c.fetch(ctx, domain, id, e)
}

// fetch gets the policy. e.busy is held.
func (c *Cache) fetch(ctx context.Context, domain, id string, e *entry) error {
	now := time.Now()
	if since := now.Sub(e.failed); e.failID == id && since >= 0 && since < fetchAgain {
		e.found.Trouble = failure(STSFetchError, "the MTA-STS policy of %s could not be fetched a moment ago", domain)
		return nil
	}
	p, err := c.fetcher.Fetch(ctx, domain)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var trouble *Failure
	if errors.As(err, &trouble) {
		e.found.Trouble, e.failed, e.failID = trouble, now, id
		c.log.Info("an MTA-STS policy can't be had", "domain", domain, "result", trouble.Result, "err", trouble, "held", e.found.Policy != nil)
		return nil
	}
	p.ID = id
	e.found.Policy, e.failed, e.failID = p, time.Time{}, ""
	c.save(ctx, domain, p)
	return nil
}

func (c *Cache) wantRenewal(domain string) {
	select {
	case c.renewal <- domain:
	default: // the next look at it asks again
	}
}

// Run renews policies that are in use, until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range renewers {
		wg.Go(func() {
			for {
				select {
				case domain := <-c.renewal:
					c.renewOne(ctx, domain)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// renewOne fetches a policy whose id has not changed. Meanwhile the old one is
// in use.
func (c *Cache) renewOne(ctx context.Context, domain string) {
	e := c.entry(domain)
	select {
	case e.busy <- struct{}{}:
	case <-ctx.Done():
		return
	}
	now := time.Now()
	p := e.found.Policy
	due := p != nil && (now.Before(p.Fetched) || now.Sub(p.Fetched) > min(renew, p.MaxAge/2)) && (e.failed.IsZero() || now.Sub(e.failed) >= fetchAgain)
	if due {
		e.failed = now // until it has come
	}
	<-e.busy
	if !due {
		return
	}
	fresh, err := c.fetcher.Fetch(ctx, domain)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Info("an MTA-STS policy can't be renewed, and holds until it expires", "domain", domain, "until", p.Expires(), "err", err)
		}
		return
	}
	fresh.ID = p.ID
	select {
	case e.busy <- struct{}{}:
	case <-ctx.Done():
		return
	}
	if e.found.Policy == p { // nothing newer came meanwhile
		e.found.Policy, e.failed = fresh, time.Time{}
		c.save(ctx, domain, fresh)
	}
	<-e.busy
}

// key is the name of a policy in the storage.
func key(domain string) string { return "mta-sts/" + domain }

// load gives the stored policy of a domain; nil: there is none. The error, which
// is logged, says that nobody knows.
func (c *Cache) load(ctx context.Context, domain string) (*STS, error) {
	if c.storage == nil {
		return nil, nil
	}
	data, err := c.storage.Load(ctx, key(domain))
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("a stored MTA-STS policy can't be read", "domain", domain, "err", err)
		}
		return nil, err
	}
	if data == nil {
		return nil, nil
	}
	var p STS
	if err := json.Unmarshal(data, &p); err != nil {
		c.log.Warn("a stored MTA-STS policy makes no sense", "domain", domain, "err", err)
		return nil, nil
	}
	if !time.Now().Before(p.Expires()) {
		return nil, nil
	}
	return &p, nil
}

func (c *Cache) save(ctx context.Context, domain string, p *STS) {
	if c.storage == nil {
		return
	}
	data, err := json.Marshal(p)
	if err == nil {
		err = c.storage.Save(ctx, key(domain), data)
	}
	if err != nil {
		c.log.Warn("an MTA-STS policy can't be stored", "domain", domain, "err", err)
	}
}
