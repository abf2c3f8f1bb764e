package limit

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"postrider/internal/relay"
)

// AccountStore keeps accounts and what became of their mail.
type AccountStore interface {
	Accounts(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Account, error)
	Plan(ctx context.Context, name string) (*relay.Plan, error)
	SetAccount(ctx context.Context, by relay.Actor, account relay.ID, a *relay.Account) error
	Outcomes(ctx context.Context, account relay.ID, since, until time.Time) ([]*relay.DayCount, error)
	Now() time.Time
}

// Daily is how many recipients a day an account may send to because it is new; 0
// where it is grown up.
func Daily(a *relay.Account, plan *relay.Plan) int64 {
	if a.Growth.Since.IsZero() && a.Growth.Daily == 0 && plan != nil {
		return plan.Start
	}
	return a.Growth.Daily
}

// grown is the daily limit at which an account is grown up that has no other one.
const grown = 1_000_000

// smallest is what an account falls back to that has no plan with a start.
const smallest = 50

// Day is what became of an account's mail on a day.
type Day struct{ Delivered, Bounced, Complaints int64 }

// Next is the daily limit after a day: twice as much after a good one, on which at
// least half of it was used, less than 5 % bounced, and no more than 0.1 % were
// complained about; half, but not less than the start, after a bad one; else the
// same. 0: there is none any more, because others hold from top on.
func Next(daily, start, top int64, d Day) int64 {
	sent := d.Delivered + d.Bounced
	const few = 20 // of so few nothing follows
	switch {
	case sent >= few && (d.Bounced*20 >= sent || d.Complaints*1000 > sent):
		return max(daily/2, min(start, daily), 1)
	case sent*2 >= daily && d.Bounced*20 < sent && d.Complaints*1000 <= sent:
		if daily*2 >= top {
			return 0
		}
		return daily * 2
	}
	return daily
}

// Grower lets new accounts grow, once a day.
type Grower struct {
	Store AccountStore
	Log   *slog.Logger
}

// Run looks every hour until ctx ends. Nodes that do so at once are told apart by
// the version of the account.
func (g *Grower) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := g.Round(ctx); err != nil && ctx.Err() == nil {
			g.Log.Warn("accounts not grown", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Round looks at all accounts once.
func (g *Grower) Round(ctx context.Context) error {
	const page = 500
	today := relay.PerDay.Start(g.Store.Now())
	for after := (relay.ID{}); ; {
		accounts, err := g.Store.Accounts(ctx, relay.Everyone, after, page)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			if err := g.grow(ctx, a, today); err != nil && relay.CodeOf(err) != relay.Conflict {
				return fmt.Errorf("grow account %s: %w", a.ID, err)
			}
		}
		if len(accounts) == 0 {
			return nil
		}
		after = accounts[len(accounts)-1].ID
	}
}

// grow takes an account a step further, for yesterday.
func (g *Grower) grow(ctx context.Context, a *relay.Account, today time.Time) error {
	if a.Growth.Daily == 0 && !a.Growth.Since.IsZero() || !a.Closed.IsZero() {
		return nil
	}
	var plan *relay.Plan
	if a.Plan != "" {
		var err error
		if plan, err = g.Store.Plan(ctx, a.Plan); err != nil && relay.CodeOf(err) != relay.NotFound {
			return err
		}
	}
	daily := Daily(a, plan)
	if daily == 0 || !a.Growth.Since.Before(today) {
		return nil
	}
	yesterday := today.AddDate(0, 0, -1)
	d, err := g.day(ctx, a, yesterday)
	if err != nil {
		return err
	}
	start, top := int64(smallest), int64(grown)
	if plan != nil {
		start = plan.Start
		top = least(top, plan.Limits)
	}
	next := relay.Growth{Daily: Next(daily, start, least(top, a.Limits), d), Since: today}
	if next.Daily == a.Growth.Daily {
		return nil
	}
	changed := *a
	changed.Growth = next
	if err := g.Store.SetAccount(ctx, relay.Actor{Name: "postrider"}, relay.Everyone, &changed); err != nil {
		return err
	}
	g.Log.Info("daily limit of a new account", "account", a.Name, "before", daily, "now", next.Daily, "delivered", d.Delivered, "bounced", d.Bounced, "complaints", d.Complaints)
	return nil
}

// day is what became of the mail of an account and of those that it manages, which
// counts against its limits.
func (g *Grower) day(ctx context.Context, a *relay.Account, day time.Time) (d Day, err error) {
	const page = 500
	for after := (relay.ID{}); ; {
		accounts, err := g.Store.Accounts(ctx, a.ID, after, page)
		if err != nil || len(accounts) == 0 {
			return d, err
		}
		for _, one := range accounts {
			counts, err := g.Store.Outcomes(ctx, one.ID, day, day)
			if err != nil {
				return d, err
			}
			for _, c := range counts {
				switch c.Kind {
				case relay.EventDelivered:
					d.Delivered += c.N
				case relay.EventBounced:
					d.Bounced += c.N
				case relay.EventComplained:
					d.Complaints += c.N
				}
			}
			after = one.ID
		}
	}
}

// least is the smallest of top and the limits of recipients in a day.
func least(top int64, limits []relay.Limit) int64 {
	for _, l := range limits {
		if l.Of == "recipients" && l.Per == relay.PerDay {
			top = min(top, l.Most)
		}
	}
	return top
}
