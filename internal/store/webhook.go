package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"postrider/internal/relay"
)

// webhookRow is a webhook with what its JSON leaves out.
type webhookRow struct {
	*relay.Webhook
	Sealed [][]byte `json:"sealed"` // its secrets, in their order
}

func encodeWebhook(h *relay.Webhook) ([]byte, error) {
	row := webhookRow{Webhook: h}
	for _, s := range h.Secrets {
		row.Sealed = append(row.Sealed, s.Sealed)
	}
	b, err := json.Marshal(row)
	if err != nil {
		return nil, fmt.Errorf("encode webhook: %w", err)
	}
	return b, nil
}

const selectWebhook = "select id, account, settings, created, version from webhook where "

func (db *DB) scanWebhook(row scanner) (*relay.Webhook, error) {
	h := &relay.Webhook{}
	var id, account, doc []byte
	var created, version int64
	if err := row.Scan(&id, &account, &doc, &created, &version); err != nil {
		return nil, err
	}
	kept := webhookRow{Webhook: h}
	if err := json.Unmarshal(doc, &kept); err != nil || len(kept.Sealed) != len(h.Secrets) {
		return nil, fmt.Errorf("read webhook %s: %w", toID(id), err)
	}
	for i := range h.Secrets {
		h.Secrets[i].Sealed = kept.Sealed[i]
	}
	h.ID, h.Account, h.Created, h.Version = toID(id), toID(account), db.clock.time(created), version
	return h, nil
}

// AddWebhook keeps a webhook, of version 1. It gets the events that come from now
// on. An account has up to that many; one more is a relay.Error TooMany.
func (db *DB) AddWebhook(ctx context.Context, by relay.Actor, h *relay.Webhook, most int) error {
	if h.ID.IsZero() || h.Account.IsZero() || h.Account == relay.Everyone || h.URL == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A webhook needs an id, an account and an address."}
	}
	h.Version = 1
	doc, err := encodeWebhook(h)
	if err != nil {
		return err
	}
	progress, err := json.Marshal(relay.WebhookProgress{Done: idAt(db.clock.theirs())})
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	return db.edit(ctx, "add webhook", func(ctx context.Context, w *writer) (*edit, error) {
		n, err := w.exec(ctx, "insert into webhook (id, account, settings, created, version)"+
			" select ?, ?, ?, cast(? as bigint), cast(? as bigint) where (select count(*) from webhook where account = ?) < ?",
			h.ID[:], h.Account[:], doc, db.clock.micros(h.Created), h.Version, h.Account[:], most)
		if err == nil && n == 0 {
			err = &relay.Error{Code: relay.TooMany, Text: fmt.Sprintf("An account has at most %d webhooks.", most), Advice: "Remove one that is not needed."}
		}
		if err != nil {
			return nil, err
		}
		_, err = w.exec(ctx, "insert into webhook_progress (webhook, account, active, lease, epoch, progress) values (?, ?, ?, 0, 0, ?)",
			h.ID[:], h.Account[:], bit(h.Status == relay.WebhookActive), progress)
		return &edit{by: by, account: h.Account, action: "webhook.add", object: h.ID.String(), after: h, silent: true}, err
	})
}

// webhookActions are what a change of the status is called.
var webhookActions = map[relay.WebhookStatus]string{relay.WebhookActive: "webhook.resume", relay.WebhookPaused: "webhook.pause", relay.WebhookDisabled: "webhook.disable"}

// SetWebhook changes a webhook of the account and raises its version. Its account
// and when it was made stay. One that is made active forgets its failures.
func (db *DB) SetWebhook(ctx context.Context, by relay.Actor, account relay.ID, h *relay.Webhook) error {
	var after relay.Webhook
	err := db.edit(ctx, "change webhook", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownWebhook(ctx, w, account, h.ID)
		if err != nil {
			return nil, err
		}
		after = *h
		after.Account, after.Created, after.Version = before.Account, before.Created, h.Version+1
		doc, err := encodeWebhook(&after)
		if err != nil {
			return nil, err
		}
		changed, err := w.exec(ctx, "update webhook set settings = ?, version = ? where id = ? and version = ?", doc, after.Version, h.ID[:], h.Version)
		if err == nil && changed == 0 {
			err = overtaken()
		}
		if err != nil {
			return nil, err
		}
		e := &edit{by: by, account: before.Account, action: "webhook.change", object: h.ID.String(), before: before, after: after, silent: true}
		if before.Status == after.Status {
			return e, nil
		}
		e.action = webhookActions[after.Status]
		return e, db.turnWebhook(ctx, w, &after)
	})
	if err == nil {
		*h = after
	}
	return err
}

// turnWebhook notes whether events are to be sent. Who served it until now finds
// that it is not his any more.
func (db *DB) turnWebhook(ctx context.Context, w *writer, h *relay.Webhook) error {
	return db.setBack(ctx, w, h.ID, func(p *relay.WebhookProgress) {
		if h.Status == relay.WebhookActive {
			p.Failing, p.Next, p.Failures = time.Time{}, time.Time{}, 0
		}
	}, bit(h.Status == relay.WebhookActive))
}

// setBack changes the progress by order, in a new epoch.
func (db *DB) setBack(ctx context.Context, w *writer, id relay.ID, change func(*relay.WebhookProgress), active int64) error {
	found, err := look(ctx, w, scanProgress, selectProgress+"p.webhook = ?", id[:])
	p, err := only(found, err, notFound("webhook", id))
	if err != nil {
		return err
	}
	change(p)
	doc, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	_, err = w.exec(ctx, "update webhook_progress set progress = ?, epoch = epoch + 1, active = ? where webhook = ?", doc, active, id[:])
	return err
}

// ReplayWebhook sends the events of the account since then again, and goes on
// from there. One that has not come so far yet goes on where it is: nothing is passed
// over that was not taken.
func (db *DB) ReplayWebhook(ctx context.Context, by relay.Actor, account, id relay.ID, since time.Time) error {
	return db.edit(ctx, "replay webhook", func(ctx context.Context, w *writer) (*edit, error) {
		h, err := db.ownWebhook(ctx, w, account, id)
		if err != nil {
			return nil, err
		}
		err = db.setBack(ctx, w, id, func(p *relay.WebhookProgress) {
			done := idAt(fromMicros(db.clock.micros(since)))
			if p.Done.Compare(done) < 0 {
				done = p.Done
			}
			// Of the others all comes again that is refused.
			aside := slices.DeleteFunc(p.Aside, func(a relay.Aside) bool { return a.From.Compare(done) > 0 })
			*p = relay.WebhookProgress{Done: done, Aside: aside, Sent: p.Sent, Delivered: p.Delivered, Failing: p.Failing, Failures: p.Failures}
		}, bit(h.Status == relay.WebhookActive))
		return &edit{by: by, account: h.Account, action: "webhook.replay", object: id.String(), after: map[string]time.Time{"since": since}, silent: true}, err
	})
}

// RemoveWebhook removes a webhook of the account.
func (db *DB) RemoveWebhook(ctx context.Context, by relay.Actor, account, id relay.ID) error {
	return db.edit(ctx, "remove webhook", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownWebhook(ctx, w, account, id)
		if err != nil {
			return nil, err
		}
		for _, text := range []string{"delete from webhook where id = ?", "delete from webhook_progress where webhook = ?", "delete from webhook_failure where webhook = ?"} {
			if _, err := w.exec(ctx, text, id[:]); err != nil {
				return nil, err
			}
		}
		return &edit{by: by, account: before.Account, action: "webhook.remove", object: id.String(), before: before, silent: true}, nil
	})
}

func (db *DB) ownWebhook(ctx context.Context, w *writer, account, id relay.ID) (*relay.Webhook, error) {
	var own conditions
	own.account("account", account)
	own.add("id = ?", id[:])
	found, err := look(ctx, w, db.scanWebhook, selectWebhook+own.String(), own.args...)
	return only(found, err, notFound("webhook", id))
}

// Webhook gives a webhook of the account.
func (db *DB) Webhook(ctx context.Context, account, id relay.ID) (*relay.Webhook, error) {
	var c conditions
	c.account("account", account)
	c.add("id = ?", id[:])
	found, err := collect(ctx, db, "read webhook", db.scanWebhook, selectWebhook+c.String(), c.args...)
	return only(found, err, notFound("webhook", id))
}

// Webhooks gives the account's webhooks after the one of that id, the oldest
// first.
func (db *DB) Webhooks(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Webhook, error) {
	var c conditions
	c.account("account", account)
	c.add("id > ?", after[:])
	return collect(ctx, db, "read webhooks", db.scanWebhook, selectWebhook+c.String()+" order by id limit ?", append(c.args, page(limit))...)
}

const selectProgress = "select p.epoch, p.progress, coalesce((select n.name from node n where n.lease = p.lease), '') from webhook_progress p where "

func scanProgress(row scanner) (*relay.WebhookProgress, error) {
	var doc []byte
	var epoch int64
	var node string
	if err := row.Scan(&epoch, &doc, &node); err != nil {
		return nil, err
	}
	var p relay.WebhookProgress
	if err := json.Unmarshal(doc, &p); err != nil {
		return nil, fmt.Errorf("read progress of a webhook: %w", err)
	}
	p.Epoch, p.Node = epoch, node
	return &p, nil
}

// WebhookProgress tells how far a webhook of the account has come.
func (db *DB) WebhookProgress(ctx context.Context, account, id relay.ID) (*relay.WebhookProgress, error) {
	var c conditions
	c.account("p.account", account)
	c.add("p.webhook = ?", id[:])
	found, err := collect(ctx, db, "read progress", scanProgress, selectProgress+c.String(), c.args...)
	return only(found, err, notFound("webhook", id))
}

// WebhookFailures gives what a webhook of the account did not take, the newest
// first, from before the one of that id; the zero id stands for all.
func (db *DB) WebhookFailures(ctx context.Context, account, id, before relay.ID, limit int) ([]*relay.WebhookFailure, error) {
	if before.IsZero() {
		before = relay.Everyone
	}
	var c conditions
	c.account("h.account", account)
	c.add("f.webhook = ? and f.id < ?", id[:], before[:])
	return collect(ctx, db, "read failures", func(row scanner) (*relay.WebhookFailure, error) {
		var f relay.WebhookFailure
		var id, doc []byte
		err := row.Scan(&id, &doc)
		if err == nil {
			err = json.Unmarshal(doc, &f)
		}
		f.ID = toID(id)
		return &f, err
	}, "select f.id, f.detail from webhook_failure f join webhook h on h.id = f.webhook where "+c.String()+" order by f.id desc limit ?", append(c.args, page(limit))...)
}
