package store

import (
	"context"
	"encoding/json"
	"fmt"

	"postrider/internal/relay"
)

func scanPlan(row scanner) (*relay.Plan, error) {
	var p relay.Plan
	var name string
	var doc []byte
	var version int64
	if err := row.Scan(&name, &doc, &version); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc, &p); err != nil {
		return nil, fmt.Errorf("read plan %q: %w", name, err)
	}
	p.Name, p.Version = name, version
	return &p, nil
}

const selectPlan = "select name, settings, version from plan where "

// SetPlan changes the plan of that name and version, or makes it where the
// version is 0. Plans are the operator's, and belong to no account.
func (db *DB) SetPlan(ctx context.Context, by relay.Actor, p *relay.Plan) error {
	if p.Name == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A plan needs a name."}
	}
	after := *p
	after.Version++
	doc, err := json.Marshal(after)
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	err = db.edit(ctx, "set plan", func(ctx context.Context, w *writer) (*edit, error) {
		if p.Version == 0 {
			if _, err := w.exec(ctx, "insert into plan (name, settings, version) values (?, ?, ?)", text(p.Name), doc, after.Version); err != nil {
				return nil, db.taken(err, fmt.Sprintf("There is a plan %q already.", p.Name), "Choose another name, or change that one.")
			}
			return &edit{by: by, account: relay.Everyone, action: "plan.add", object: p.Name, after: after}, nil
		}
		found, err := look(ctx, w, scanPlan, selectPlan+"name = ?", text(p.Name))
		before, err := only(found, err, missing("plan", p.Name))
		if err != nil {
			return nil, err
		}
		changed, err := w.exec(ctx, "update plan set settings = ?, version = ? where name = ? and version = ?", doc, after.Version, text(p.Name), p.Version)
		if err == nil && changed == 0 {
			err = overtaken()
		}
		return &edit{by: by, account: relay.Everyone, action: "plan.change", object: p.Name, before: before, after: after}, err
	})
	if err == nil {
		*p = after
	}
	return err
}

// RemovePlan removes a plan that no account has.
func (db *DB) RemovePlan(ctx context.Context, by relay.Actor, name string) error {
	return db.edit(ctx, "remove plan", func(ctx context.Context, w *writer) (*edit, error) {
		found, err := look(ctx, w, scanPlan, selectPlan+"name = ?", text(name))
		before, err := only(found, err, missing("plan", name))
		if err != nil {
			return nil, err
		}
		gone, err := w.exec(ctx, "delete from plan where name = ? and not exists (select 1 from account where plan = ?)", text(name), text(name))
		if err == nil && gone == 0 {
			err = &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("There are accounts on plan %q.", name), Advice: "Give them another plan first."}
		}
		return &edit{by: by, account: relay.Everyone, action: "plan.remove", object: name, before: before}, err
	})
}

// Plan gives one by its name.
func (db *DB) Plan(ctx context.Context, name string) (*relay.Plan, error) {
	found, err := collect(ctx, db, "read plan", scanPlan, selectPlan+"name = ?", text(name))
	return only(found, err, missing("plan", name))
}

// Plans gives all, by name.
func (db *DB) Plans(ctx context.Context) ([]*relay.Plan, error) {
	return collect(ctx, db, "read plans", scanPlan, selectPlan+"1 = 1 order by name")
}
