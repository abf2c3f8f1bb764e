package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/smtp"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"postrider/internal/lab/postgres"
	"postrider/internal/lab/process"
	mail "postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/signing"
	"postrider/internal/store"
	pg "postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
)

// returning sends bounces to the port for them.
type returning struct {
	addr  string
	paths *signing.ReturnPaths
	todo  chan string // ids of messages
	mu    sync.Mutex
	acked []string
}

func (r *returning) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acked)
}

// session sends, one bounce a message, until the connection breaks.
func (r *returning) session() error {
	c, err := smtp.Dial(r.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for id := range r.todo {
		name, err := mail.ParseID(id)
		if err != nil {
			return err
		}
		to := r.paths.Address(mail.DeliveryID{Message: name, N: 1}, "back.relay.test")
		if err := errors.Join(c.Mail(""), c.Rcpt(to)); err != nil {
			return err
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "From: MAILER-DAEMON@receiver.test\r\nTo: %s\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"+
			"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"+
			"Reporting-MTA: dns; receiver.test\r\n\r\nFinal-Recipient: rfc822; ann@receiver.test\r\nAction: failed\r\nStatus: 5.1.1\r\n"+
			"Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\r\n--b--\r\n", to)
		if err := w.Close(); err != nil {
			return err
		}
		r.mu.Lock()
		r.acked = append(r.acked, id)
		r.mu.Unlock()
	}
	return nil
}

// Killed with -9 while bounces come in, the relay settles each that it acknowledged,
// and settles it once, whichever store it has.
func TestKillLosesNoBounce(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		killLosesNoBounce(t, "", func(r *relay) (*store.DB, error) {
			return sqlite.Open(t.Context(), filepath.Join(r.Data, "postrider.db"), slog.New(slog.DiscardHandler))
		})
	})
	t.Run("postgres", func(t *testing.T) {
		server := postgres.Run(t, postgres.Options{})
		killLosesNoBounce(t, fmt.Sprintf("store = %q\n", server.URL()), func(*relay) (*store.DB, error) {
			return pg.Open(t.Context(), server.URL(), slog.New(slog.DiscardHandler))
		})
	})
}

func killLosesNoBounce(t *testing.T, settings string, open func(*relay) (*store.DB, error)) {
	const messages, sessions, kills = 400, 8, 3
	to := newReceiver(t, byTrace)
	back, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(t, to.Addr(), settings+fmt.Sprintf("[service]\nreturn_host = \"back.relay.test\"\n[[listen]]\nname = \"back\"\naddress = %q\nmode = \"feedback\"\n", back))
	r.start()
	s := &sender{r: r}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() { s.session(stop) })
	}
	within(t, patience, "enough messages have arrived", func() bool { return len(to.counts()) >= messages })
	close(stop)
	wg.Wait()
	r.stop() // what has arrived is settled
	r.start()

	key, err := seal.ReadFile(filepath.Join(filepath.Dir(r.Config), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := signing.NewReturnPaths(box)
	if err != nil {
		t.Fatal(err)
	}
	b := &returning{addr: back, paths: paths, todo: make(chan string, messages)}
	for id := range to.counts() {
		if len(b.todo) < messages {
			b.todo <- id
		}
	}
	for n := range kills {
		for range sessions {
			wg.Go(func() { b.session() }) // ends in an error when the relay is killed
		}
		enough := (n + 1) * messages / (kills + 1)
		within(t, patience, "enough bounces are taken", func() bool { return b.count() >= enough })
		r.Kill()
		wg.Wait()
		r.start()
	}
	// What was taken and not acknowledged any more may be settled before all that was.
	within(t, patience, "what was acknowledged is settled", func() bool {
		settled := map[string]bool{}
		for line := range strings.Lines(r.run("log", "-outcome", "bounced", "-json", "-n", "0")) {
			var d struct {
				Message string `json:"message"`
			}
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				t.Fatal(err)
			}
			settled[d.Message] = true
		}
		return !slices.ContainsFunc(b.acked, func(id string) bool { return !settled[id] })
	})
	r.stop()
	db, err := open(r)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, id := range b.acked {
		name, err := mail.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		story, err := db.Story(t.Context(), mail.Everyone, name)
		if err != nil {
			t.Fatal(err)
		}
		bounced := 0
		for _, e := range story.Events {
			if e.Kind == mail.EventBounced || e.Kind == mail.EventFeedback {
				bounced++
			}
		}
		if bounced != 1 || story.Deliveries[0].State != mail.Bounced {
			t.Errorf("%s: %d events of its bounce, %s", id, bounced, story.Deliveries[0].State)
		}
	}
	left, err := db.Returned(t.Context(), mail.Everyone, mail.ID{}, messages)
	if err != nil || slices.ContainsFunc(left, func(m *mail.Returned) bool { return slices.Contains(b.acked, m.Delivery.Message.String()) }) {
		t.Errorf("left: %v, %v", left, err)
	}
	list, err := db.Suppressions(t.Context(), mail.Everyone, mail.SuppressionFilter{})
	if err != nil || len(list) != 1 || list[0].Reason != mail.ReasonBounce {
		t.Errorf("suppressions %+v, %v", list, err)
	}
	t.Logf("%d bounces taken over %d kills, each settled once", len(b.acked), kills)
}
