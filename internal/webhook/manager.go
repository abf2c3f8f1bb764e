package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// Bounds of what people may ask for.
const (
	mostHooks   = 50 // of an account
	mostBatch   = 1000
	mostPending = time.Minute
	mostList    = 100 // entries in a filter
	mostURL     = 2000
	mostKept    = 30 * 24 * time.Hour
)

// Keeper is where a Manager keeps webhooks.
type Keeper interface {
	Writer
	Webhook(ctx context.Context, account, id relay.ID) (*relay.Webhook, error)
	Webhooks(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Webhook, error)
	WebhookProgress(ctx context.Context, account, id relay.ID) (*relay.WebhookProgress, error)
	WebhookFailures(ctx context.Context, account, id, before relay.ID, limit int) ([]*relay.WebhookFailure, error)
}

// Manager adds, changes, tests and removes webhooks. Its errors are relay.Errors
// where people can do something about them.
type Manager struct {
	Keeper
	config Config
	box    Box
	newID  func() (relay.ID, error)
	poster *poster
	now    func() time.Time
}

// NewManager makes a manager.
func NewManager(c Config, k Keeper, box Box, newID func() (relay.ID, error)) *Manager {
	return &Manager{Keeper: k, config: c, box: box, newID: newID, poster: newPoster(c), now: func() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }}
}

// Settings are what people choose of a webhook. Fields that are nil stay, or are
// what is usual: all events, each in a request of its own.
type Settings struct {
	URL         *string   `json:"url,omitempty" doc:"Where events are posted to: https, a public address"`
	Description *string   `json:"description,omitempty" maxLength:"200"`
	Events      *[]string `json:"events,omitempty" doc:"Which events: accepted, delivered, deferred, bounced, expired, held, released, cancelled, rescheduled, reported, feedback, complained, opened, clicked, unsubscribed, resubscribed. None: all"`
	Tags        *[]string `json:"tags,omitempty" doc:"Only of messages that have one of these tags"`
	Credentials *[]string `json:"credentials,omitempty" doc:"Only of messages that came with one of these credentials, by id"`
	Stream      *string   `json:"stream,omitempty" enum:",transactional,broadcast" doc:"Only of messages of this stream; empty: of both"`
	Batch       *int      `json:"batch,omitempty" minimum:"0" maximum:"1000" doc:"Most events in a request, which is an array then. 0: one, and no array"`
	Wait        *float64  `json:"wait,omitempty" minimum:"0" maximum:"60" doc:"Seconds that an array waits for more events"`
	Paused      *bool     `json:"paused,omitempty" doc:"true: nothing is sent. false: it goes on where it ended, also when the relay has disabled the webhook"`
	Version     int64     `json:"version,omitempty" doc:"The version that the change is made to; another is a conflict. 0: whichever there is"`
}

func invalid(advice, format string, args ...any) error {
	return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf(format, args...), Advice: advice}
}

// apply writes the settings into h.
func (m *Manager) apply(s Settings, h *relay.Webhook) error {
	if s.URL != nil {
		if err := m.poster.check(*s.URL); err != nil {
			return err
		}
		h.URL = *s.URL
	}
	if s.Description != nil {
		h.Description = printable(*s.Description)
	}
	if s.Events != nil {
		h.Kinds = nil
		for _, name := range *s.Events {
			var k relay.Kind
			if err := k.UnmarshalText([]byte(strings.TrimPrefix(name, "delivery."))); err != nil {
				return invalid("See docs/webhooks.md for the list.", "%.40q is not an event.", name)
			}
			if !slices.Contains(h.Kinds, k) {
				h.Kinds = append(h.Kinds, k)
			}
		}
	}
	if s.Tags != nil {
		if h.Tags = *s.Tags; len(h.Tags) > mostList {
			return invalid("", "A webhook can ask for %d tags at most.", mostList)
		}
	}
	if s.Credentials != nil {
		h.Credentials = nil
		for _, c := range *s.Credentials {
			id, err := relay.ParseID(c)
			if err != nil || len(h.Credentials) == mostList {
				return invalid("\"postrider credential list\" shows ids.", "%.40q is not the id of a credential, or there are more than %d.", c, mostList)
			}
			h.Credentials = append(h.Credentials, id)
		}
	}
	if s.Stream != nil {
		h.Stream = 0
		if *s.Stream != "" {
			stream, err := relay.ParseStream(*s.Stream)
			if err != nil {
				return invalid("Use \"transactional\" or \"broadcast\", or leave it empty.", "%.40q is not a stream.", *s.Stream)
			}
			h.Stream = stream
		}
	}
	if s.Batch != nil {
		if h.Batch = *s.Batch; h.Batch < 0 || h.Batch > mostBatch {
			return invalid("", "A request has %d events at most.", mostBatch)
		}
	}
	if s.Wait != nil {
		h.Wait = time.Duration(*s.Wait * float64(time.Second))
		if h.Wait < 0 || h.Wait > mostPending {
			return invalid("", "A request waits for more events for %v at most.", mostPending)
		}
	}
	if s.Paused != nil {
		switch {
		case !*s.Paused:
			h.Status, h.Reason = relay.WebhookActive, ""
		case h.Status == relay.WebhookActive:
			h.Status = relay.WebhookPaused
		}
	}
	return nil
}

// Add makes a webhook. The secret is not shown again.
func (m *Manager) Add(ctx context.Context, by relay.Actor, account relay.ID, s Settings) (*relay.Webhook, string, error) {
	if s.URL == nil {
		return nil, "", invalid("", "A webhook needs the address that events are posted to.")
	}
	id, err := m.newID()
	if err != nil {
		return nil, "", err
	}
	h := &relay.Webhook{ID: id, Account: account, Status: relay.WebhookActive, Created: m.now()}
	if err := m.apply(s, h); err != nil {
		return nil, "", err
	}
	secret := m.newSecret(h)
	if err := m.AddWebhook(ctx, by, h, mostHooks); err != nil {
		return nil, "", err
	}
	return h, secret, nil
}

// newSecret gives h a secret.
func (m *Manager) newSecret(h *relay.Webhook) string {
	secret := newSecret()
	h.Secrets = append(h.Secrets, relay.WebhookSecret{Sealed: m.box.Seal([]byte(secret), sealContext(h)), Created: m.now()})
	return secret
}

// tries is how often a change is made anew when somebody else was faster.
const tries = 4

func (m *Manager) edit(ctx context.Context, by relay.Actor, account, id relay.ID, version int64, f func(*relay.Webhook) error) (*relay.Webhook, error) {
	for n := 1; ; n++ {
		h, err := m.Webhook(ctx, account, id)
		if err != nil {
			return nil, err
		}
		if version != 0 && version != h.Version {
			return nil, &relay.Error{Code: relay.Conflict, Text: "Somebody else has changed the webhook meanwhile.", Advice: "Look at it anew, and try again."}
		}
		if err := f(h); err != nil {
			return nil, err
		}
		err = m.SetWebhook(ctx, by, h.Account, h)
		if err == nil {
			return h, nil
		}
		if relay.CodeOf(err) != relay.Conflict || n == tries {
			return nil, err
		}
	}
}

// Change sets what people choose.
func (m *Manager) Change(ctx context.Context, by relay.Actor, account, id relay.ID, s Settings) (*relay.Webhook, error) {
	return m.edit(ctx, by, account, id, s.Version, func(h *relay.Webhook) error { return m.apply(s, h) })
}

// Rotate gives a webhook a new secret, which is not shown again. The one before
// it is good for as long as that yet; those before that are not.
func (m *Manager) Rotate(ctx context.Context, by relay.Actor, account, id relay.ID, keep time.Duration) (*relay.Webhook, string, error) {
	if keep < 0 || keep > mostKept {
		return nil, "", invalid("", "The old secret is good for up to %d hours.", int(mostKept.Hours()))
	}
	var secret string
	h, err := m.edit(ctx, by, account, id, 0, func(h *relay.Webhook) error {
		old := h.Secrets[len(h.Secrets)-1]
		old.Until = m.now().Add(keep)
		h.Secrets = []relay.WebhookSecret{old}
		secret = m.newSecret(h)
		return nil
	})
	return h, secret, err
}

// Remove forgets a webhook.
func (m *Manager) Remove(ctx context.Context, by relay.Actor, account, id relay.ID) (*relay.Webhook, error) {
	h, err := m.Webhook(ctx, account, id)
	if err != nil {
		return nil, err
	}
	return h, m.RemoveWebhook(ctx, by, h.Account, id)
}

// Replay sends the events since then again, then all that came since.
func (m *Manager) Replay(ctx context.Context, by relay.Actor, account, id relay.ID, since time.Time) error {
	if since.IsZero() || since.After(m.now()) {
		return invalid("Name a time in the past.", "Only what has happened can be sent again.")
	}
	return m.ReplayWebhook(ctx, by, account, id, since)
}

// Test posts an event of the type TestType now, whatever the webhook's status,
// and gives the answer.
func (m *Manager) Test(ctx context.Context, account, id relay.ID) (Answer, error) {
	h, err := m.Webhook(ctx, account, id)
	if err != nil {
		return Answer{}, err
	}
	event, err := m.newID()
	if err != nil {
		return Answer{}, err
	}
	now := m.now()
	secrets, err := good(m.box, h, now)
	if err != nil {
		return Answer{}, err
	}
	e := struct {
		ID        string            `json:"id"`
		Type      string            `json:"type"`
		Timestamp time.Time         `json:"timestamp"`
		Data      map[string]string `json:"data"`
	}{event.String(), TestType, now, map[string]string{"account": h.Account.String(), "webhook": h.ID.String()}}
	var v any = e
	if h.Batch > 0 {
		v = []any{e}
	}
	body, err := json.Marshal(v)
	if err != nil {
		return Answer{}, fmt.Errorf("encode event: %w", err)
	}
	return m.poster.post(ctx, h.URL, secrets, request{id: e.ID, body: body}), nil
}

// Count counts all webhooks by their status.
func (m *Manager) Count(ctx context.Context) (map[relay.WebhookStatus]int, error) {
	count := map[relay.WebhookStatus]int{relay.WebhookActive: 0, relay.WebhookPaused: 0, relay.WebhookDisabled: 0}
	const page = 1000
	for after := (relay.ID{}); ; {
		some, err := m.Webhooks(ctx, relay.Everyone, after, page)
		if err != nil {
			return nil, err
		}
		for _, h := range some {
			count[h.Status]++
			after = h.ID
		}
		if len(some) < page {
			return count, nil
		}
	}
}
