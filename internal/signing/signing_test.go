package signing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/mailauth"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/store"
)

// fakeDirectory has domains by account and name, and may fail.
type fakeDirectory struct {
	domains map[relay.ID]map[string]*relay.Domain
	err     error
}

func (f *fakeDirectory) Domain(_ context.Context, account relay.ID, name string) (*relay.Domain, error) {
	for rest, more := name, true; more && f.err == nil; _, rest, more = strings.Cut(rest, ".") {
		if d := f.domains[account][rest]; d != nil {
			return d, nil
		}
	}
	return nil, f.err
}

// counted is content that counts how often it is read.
type counted struct {
	relay.Content
	opened atomic.Int64
	err    error
}

func (c *counted) Open() (io.ReadCloser, error) {
	c.opened.Add(1)
	if c.err != nil {
		return nil, c.err
	}
	return c.Content.Open()
}

// rig is a signer for the domain example.com of account 1, of which DNS has the
// keys.
type rig struct {
	t         *testing.T
	box       *seal.Box
	domain    *relay.Domain
	directory *fakeDirectory
	signer    *Signer
	resolver  *dns.Resolver
	zone      *fakedns.Server
}

var account = relay.ID{1}

func newRig(t *testing.T, service ...mailauth.Signer) *rig {
	t.Helper()
	box := newBox(t)
	d := &relay.Domain{ID: relay.ID{9}, Account: account, Name: "example.com", ReturnPath: "bounce"}
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	r := &rig{t: t, box: box, domain: d, zone: zone, directory: &fakeDirectory{domains: map[relay.ID]map[string]*relay.Domain{account: {d.Name: d}}}}
	for _, algorithm := range []string{mailauth.RSA, mailauth.Ed25519} {
		k, err := NewKey(box, d, "pr"+algorithm, algorithm, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		k.State = relay.KeySigning
		d.Keys = append(d.Keys, k)
		r.publish(k.Selector, d.Name, k.Public)
	}
	if r.signer, err = New(box, r.directory, service); err != nil {
		t.Fatal(err)
	}
	if r.resolver, err = dns.New([]string{zone.Addr()}, 0); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) publish(selector, domain, record string) {
	r.t.Helper()
	half := len(record) / 2
	if err := r.zone.Add(fmt.Sprintf("%s._domainkey.%s. 60 IN TXT %q %q", selector, domain, record[:half], record[half:])); err != nil {
		r.t.Fatal(err)
	}
}

const text = "Received: from x by y; now\r\nFrom: a@example.com\r\nSubject: hello\r\n\r\nHello.\r\n"

func mail(from string) *relay.Message {
	return &relay.Message{ID: relay.ID{5}, Account: account, From: from, Envelope: relay.Envelope{Sender: "a@example.com"}}
}

// signed gives who has signed a message, with what came of verifying it.
func (r *rig) signed(m *relay.Message) string {
	r.t.Helper()
	fields, err := r.signer.Sign(r.t.Context(), m, message.Bytes([]byte(text)), "")
	if err != nil {
		return "error: " + err.Error()
	}
	found, err := mailauth.VerifyDKIM(r.t.Context(), r.resolver, strings.NewReader(string(fields)+text))
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, s := range found {
		all = append(all, s.Selector+"."+s.Domain+" "+string(s.Result))
	}
	return strings.Join(all, ", ")
}

const bothKeys = "prrsa.example.com pass, pred25519.example.com pass"

func TestSign(t *testing.T) {
	r := newRig(t)
	other := mail("a@example.com")
	other.Account = relay.ID{2}
	for name, tt := range map[string]struct {
		m    *relay.Message
		want string
	}{
		"domain":          {mail("a@example.com"), bothKeys},
		"case":            {mail("a@EXAMPLE.com"), bothKeys},
		"subdomain":       {mail("a@news.example.com"), bothKeys},
		"quoted":          {mail(`"a@b"@example.com`), bothKeys},
		"another domain":  {mail("a@example.org"), ""},
		"another account": {other, ""},
		"no address":      {mail(""), ""},
		"nonsense":        {mail("undisclosed"), ""},
		"international":   {mail("a@bücher.example"), ""},
	} {
		tt.m.ID = relay.ID{byte(len(name)), byte(name[0])}
		if got := r.signed(tt.m); got != tt.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	r.directory.domains[account]["xn--bcher-kva.example"] = r.domain
	m := mail("a@bücher.example")
	m.ID = relay.ID{77}
	if got := r.signed(m); got != bothKeys {
		t.Errorf("by A-labels: %s", got)
	}
}

// Keys sign in one state only.
func TestKeyStates(t *testing.T) {
	r := newRig(t)
	for state, want := range map[relay.KeyState]string{relay.KeyWaiting: "prrsa.example.com pass", relay.KeyRetired: "prrsa.example.com pass", relay.KeySigning: bothKeys} {
		r.domain.Keys[1].State = state
		if got := r.signed(mail("a@example.com")); got != want {
			t.Errorf("%s: %s", state, got)
		}
	}
}

// A domain that signs sends nothing unsigned, whatever is wrong.
func TestNeverUnsigned(t *testing.T) {
	for name, tt := range map[string]struct {
		breakIt func(r *rig)
		want    string
	}{
		"another master key": {func(r *rig) { r.signer.box = newBox(r.t) }, "another master key"},
		"damaged key":        {func(r *rig) { r.domain.Keys[1].Sealed[20] ^= 1 }, "damaged"},
		"no key":             {func(r *rig) { r.domain.Keys[0].Sealed = nil }, "damaged"},
		"not a key": {func(r *rig) {
			r.domain.Keys[0].Sealed = r.box.Seal([]byte("nonsense"), purpose(r.domain, r.domain.Keys[0].Selector))
		}, "no private key"},
		"no directory": {func(r *rig) { r.directory.err = errors.New("the store is away") }, "the store is away"},
	} {
		r := newRig(t)
		tt.breakIt(r)
		if got := r.signed(mail("a@example.com")); !strings.HasPrefix(got, "error:") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	r := newRig(t)
	broken := &counted{err: io.ErrClosedPipe}
	if fields, err := r.signer.Sign(t.Context(), mail("a@example.com"), broken, ""); !errors.Is(err, io.ErrClosedPipe) || fields != nil {
		t.Errorf("content that can't be read: %q, %v", fields, err)
	}
	// What failed is tried again.
	if got := r.signed(mail("a@example.com")); got != bothKeys {
		t.Errorf("after a failure: %s", got)
	}
}

func TestService(t *testing.T) {
	box, files := newBox(t), fakeFiles{}
	own, err := Service(t.Context(), files, box, "relay.test", "pr")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Service(t.Context(), files, box, "relay.test", "pr")
	if err != nil || again[0].Key.Record() != own[0].Key.Record() || again[1].Key.Record() != own[1].Key.Record() {
		t.Errorf("another start has other keys: %v", err)
	}
	if _, err := Service(t.Context(), files, newBox(t), "relay.test", "pr"); !errors.Is(err, seal.ErrBroken) {
		t.Errorf("another master key: %v", err)
	}
	r := newRig(t, own...)
	for _, s := range own {
		r.publish(s.Selector, s.Domain, s.Key.Record())
	}
	const alone = "prr.relay.test pass, pre.relay.test pass"
	if got := r.signed(mail("a@example.com")); got != bothKeys+", "+alone {
		t.Errorf("both: %s", got)
	}
	if got := r.signed(mail("postmaster@relay.test")); got != alone {
		t.Errorf("of nobody's domain: %s", got)
	}
}

// A thousand recipients of one message cost one signature, each rendering and
// each set of keys has its own.
func TestSignedOnce(t *testing.T) {
	r := newRig(t)
	content := &counted{Content: message.Bytes([]byte(text))}
	sign := func(rendering string) string {
		fields, err := r.signer.Sign(t.Context(), mail("a@example.com"), content, rendering)
		if err != nil {
			t.Error(err)
		}
		return string(fields)
	}
	var wg sync.WaitGroup
	all := make([]string, 1000)
	for i := range all {
		wg.Go(func() { all[i] = sign("as accepted") })
	}
	wg.Wait()
	for _, fields := range all {
		if fields != all[0] || fields == "" {
			t.Fatalf("not all have the same signature: %s", fields)
		}
	}
	if n := content.opened.Load(); n != 1 {
		t.Errorf("read %d times", n)
	}
	sign("7bit")
	r.domain.Keys[0].State = relay.KeyRetired
	sign("as accepted")
	if n := content.opened.Load(); n != 3 {
		t.Errorf("with another rendering and other keys: read %d times", n)
	}
	sign("")
	sign("")
	if n := content.opened.Load(); n != 5 {
		t.Errorf("what goes to one recipient alone, twice: read %d times", n-3)
	}
}

func TestReturnPathOf(t *testing.T) {
	r := newRig(t)
	id := relay.DeliveryID{Message: relay.ID{5}, N: 3}
	path := func(m *relay.Message) string {
		t.Helper()
		addr, ours, err := r.signer.ReturnPath(t.Context(), m, id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.signer.paths.Parse(addr); ours != (err == nil) || ours && got != id {
			t.Errorf("%s: ours %t, of %v (%v)", addr, ours, got, err)
		}
		_, host, _ := strings.Cut(addr, "@")
		return host
	}
	if got := path(mail("a@example.com")); got != "example.com" {
		t.Errorf("not aligned: %s", got)
	}
	r.domain.Aligned = time.Now()
	if got := path(mail("a@news.example.com")); got != "bounce.example.com" {
		t.Errorf("aligned: %s", got)
	}
	if got := path(mail("a@example.org")); got != "example.com" {
		t.Errorf("of another domain: %s", got)
	}
	null := mail("a@example.com")
	null.Envelope.Sender = ""
	if got := path(null); got != "" {
		t.Errorf("null: %s", got)
	}
	r.domain.ReturnPath = ""
	if got := path(mail("a@example.com")); got != "example.com" {
		t.Errorf("without a host: %s", got)
	}
	r.directory.err = errors.New("away")
	if _, _, err := r.signer.ReturnPath(t.Context(), mail("a@example.com"), id); err == nil {
		t.Error("the directory's error is lost")
	}
}

func TestCache(t *testing.T) {
	c := newCache[int](10)
	made := 0
	get := func(i int) int {
		v, err := c.get(t.Context(), fmt.Sprint(i), func() (int, error) { made++; return i, nil })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i := range 1000 {
		if get(i) != i || get(0) != 0 {
			t.Fatalf("got another's value")
		}
	}
	if made != 1000 || len(c.young)+len(c.old) > 20 {
		t.Errorf("made %d, remembers %d", made, len(c.young)+len(c.old))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = c.get(t.Context(), "slow", func() (int, error) { close(begun); <-end; return 0, errors.New("failed") })
	})
	<-begun
	if _, err := c.get(ctx, "slow", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("one who gave up: %v", err)
	}
	wg.Go(func() {
		if v, err := c.get(t.Context(), "slow", func() (int, error) { return 7, nil }); v != 7 || err != nil {
			t.Errorf("after a failure: %d, %v", v, err)
		}
	})
	close(end)
	wg.Wait()
}

// fakeFiles are files by name.
type fakeFiles map[string][]byte

func (f fakeFiles) File(_ context.Context, name string) (*store.File, error) {
	b, ok := f[name]
	if !ok {
		return nil, &relay.Error{Code: relay.NotFound, Text: "There is no such file."}
	}
	return &store.File{Name: name, Bytes: b}, nil
}

func (f fakeFiles) EnsureFile(_ context.Context, name string, content []byte) ([]byte, error) {
	if _, ok := f[name]; !ok {
		f[name] = content
	}
	return f[name], nil
}
