package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"postrider/internal/api"
	"postrider/internal/suppression"
)

func groupCommand() command {
	return command{name: "group", args: "add ID | list | show ID | set ID | remove ID | leave ID ADDRESS… | rejoin ID ADDRESS… | members ID | check ID ADDRESS | import ID FILE",
		short: "kinds of mail that recipients can leave",
		example: `
postrider group add -name "Newsletter" -description "Once a week" -default newsletter
postrider group add -name "Offers" offers
postrider group list
postrider group leave -note "asked by phone" newsletter ann@example.com
postrider group check newsletter ann@example.com
postrider group members newsletter
postrider group import newsletter left-elsewhere.csv
postrider group rejoin newsletter ann@example.com
postrider group remove -forget offers`,
		run: runGroup}
}

// groupFlags are those of all its verbs.
type groupFlags struct {
	place
	name, description, note, text  string
	hidden, standard, forget, json bool
	position                       int
}

func (f *groupFlags) register(fs *flag.FlagSet) {
	f.clientFlags(fs)
	f.accountFlag(fs)
	fs.StringVar(&f.name, "name", "", "add, set: `name` that recipients see; else the id")
	fs.StringVar(&f.description, "description", "", "add, set: `words` that recipients see below it")
	fs.BoolVar(&f.hidden, "hidden", false, "add, set: only those who had mail of it see it on the preference page")
	fs.BoolVar(&f.standard, "default", false, "add, set: broadcast mail that names no group is of this one")
	fs.IntVar(&f.position, "position", 0, "add, set: `place` on the preference page")
	fs.BoolVar(&f.forget, "forget", false, "remove: even if somebody has left it, who may then get such mail again")
	fs.StringVar(&f.note, "note", "", "leave, import: `words` for people")
	fs.StringVar(&f.text, "text", "", "members: `part` of the address")
	fs.BoolVar(&f.json, "json", false, "print JSON; list, members: one object a line")
}

func runGroup(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var f groupFlags
	f.register(fs)
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": 1, "list": 0, "show": 1, "set": 1, "remove": 1, "leave": -1, "rejoin": -1, "members": 1, "check": 2, "import": 2}.of(rest)
	if ok && (verb == "leave" || verb == "rejoin") {
		ok = len(words) > 1
	}
	if !ok {
		return badUsage(e, fs, "list, or add, show, set, remove, leave, rejoin, members, check or import with the ID of a group is wanted")
	}
	c, err := f.client()
	if err != nil {
		return err
	}
	const path = "/v1/unsubscribe-groups"
	switch verb {
	case "list":
		return printList(ctx, e, c, path, nil, f.json, "ID\tNAME\tSHOWN\tDEFAULT\tPOSITION\tDESCRIPTION", func(g api.Group) []string {
			return []string{g.ID, g.Name, shown(g), yes(g.Default), fmt.Sprint(g.Position), g.Description}
		})
	case "members":
		q := url.Values{"limit": {"1000"}}
		if f.text != "" {
			q.Set("text", f.text)
		}
		return printList(ctx, e, c, where(path, words[0])+"/members", q, f.json, "ADDRESS\tLEFT\tNOTE", func(l api.Leaver) []string {
			return []string{l.Address, stamp(l.Created), l.Note}
		})
	case "add", "show", "set":
		return f.one(ctx, e, c, verb, words[0], given(fs))
	}
	return f.members(ctx, e, c, verb, where(path, words[0]), words)
}

// one does what answers with the group.
func (f *groupFlags) one(ctx context.Context, e *Env, c *api.Client, verb, id string, g changes) (err error) {
	const path = "/v1/unsubscribe-groups"
	not := func(b bool) bool { return !b }
	var out api.Group
	switch verb {
	case "add":
		public := !f.hidden
		name := f.name
		if name == "" {
			name = id
		}
		err = c.Post(ctx, path, api.NewGroup{ID: id, Name: name, Description: f.description, Public: &public, Default: f.standard, Position: f.position}, &out)
	case "show":
		err = c.Get(ctx, where(path, id), nil, &out)
	case "set":
		err = c.Patch(ctx, where(path, id), api.GroupChange{Name: ifGiven(g, "name", f.name, same), Description: ifGiven(g, "description", f.description, same),
			Public: ifGiven(g, "hidden", f.hidden, not), Default: ifGiven(g, "default", f.standard, same), Position: ifGiven(g, "position", f.position, same)}, &out)
	}
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	standard := ""
	if out.Default {
		standard = ", the default one"
	}
	fmt.Fprintf(e.Stdout, "Group %s: %s (%s%s).\n", clean(out.ID), clean(out.Name), shown(out), standard)
	return nil
}

// members does what is about those who left a group, and removes one.
func (f *groupFlags) members(ctx context.Context, e *Env, c *api.Client, verb, path string, words []string) error {
	var said any
	var text string
	switch verb {
	case "remove":
		if f.forget {
			path += "?forget=true"
		}
		if err := c.Delete(ctx, path, nil); err != nil {
			return err
		}
		said, text = map[string]string{"removed": words[0]}, fmt.Sprintf("Removed the group %s.", words[0])
	case "leave", "import":
		addresses := words[1:]
		if verb == "import" {
			var err error
			if addresses, err = addressColumn(e, words[1]); err != nil {
				return err
			}
		}
		out, refused, err := f.leave(ctx, e, c, path+"/members", addresses)
		if err != nil {
			return err
		}
		if refused > 0 && verb == "leave" {
			return fmt.Errorf("%d of %d are no addresses; %d are new", refused, len(addresses), out.Added)
		}
		said, text = out, fmt.Sprintf("%d new of %d: they get no mail of %s any more.", out.Added, len(addresses), words[0])
		if refused > 0 {
			text += fmt.Sprintf(" %d were refused.", refused)
		}
	case "rejoin":
		for _, a := range words[1:] {
			if err := c.Delete(ctx, where(path+"/members", a), nil); err != nil {
				return err
			}
		}
		said, text = map[string]any{"rejoined": words[1:]}, fmt.Sprintf("%d get mail of %s again.", len(words)-1, words[0])
	case "check":
		var out api.Leaver
		if err := c.Get(ctx, where(path+"/members", words[1]), nil, &out); err != nil {
			return err
		}
		said, text = out, fmt.Sprintf("%s left %s on %s.", out.Address, out.Group, stamp(out.Created))
	}
	if f.json {
		return printJSON(e.Stdout, said)
	}
	fmt.Fprintln(e.Stdout, clean(text))
	return nil
}

// leaversAtOnce is how many addresses go into one request.
const leaversAtOnce = 5000

// leave has addresses leave a group, in parts. Where the server refuses one of several
// it is halved until only the address at fault is left out, which is told.
func (f *groupFlags) leave(ctx context.Context, e *Env, c *api.Client, path string, addresses []string) (all api.AddedLeavers, refused int, err error) {
	for part := range slices.Chunk(addresses, leaversAtOnce) {
		added, bad, err := f.leavePart(ctx, e, c, path, part)
		all.Added, refused = all.Added+added, refused+bad
		if err != nil {
			return all, refused, fmt.Errorf("broken off after %d new ones; do it again, which adds nothing twice: %w", all.Added, err)
		}
	}
	return all, refused, nil
}

func (f *groupFlags) leavePart(ctx context.Context, e *Env, c *api.Client, path string, addresses []string) (added int64, refused int, err error) {
	var in api.NewLeavers
	for _, a := range addresses {
		in.Data = append(in.Data, api.NewLeaver{Address: a, Note: f.note})
	}
	var out api.AddedLeavers
	switch err = c.Post(ctx, path, in, &out); {
	case err == nil || !ofTheLines(err):
		return out.Added, 0, err
	case len(addresses) == 1:
		fmt.Fprintln(e.Stderr, clean(err.Error()))
		return 0, 1, nil
	}
	for _, half := range [][]string{addresses[:len(addresses)/2], addresses[len(addresses)/2:]} {
		more, bad, err := f.leavePart(ctx, e, c, path, half)
		if added, refused = added+more, refused+bad; err != nil {
			return added, refused, err
		}
	}
	return added, refused, nil
}

// addressColumn reads the addresses of a CSV file: of its column email or address,
// or of the first one where it has no head.
func addressColumn(e *Env, file string) ([]string, error) {
	b, err := readFile(e, file)
	if err != nil {
		return nil, err
	}
	list := strings.TrimPrefix(string(b), "\ufeff")
	head, _, _ := strings.Cut(list, "\n")
	r := suppression.NewRows(strings.NewReader(list), head)
	var all []string
	column := 0
	for first := true; ; first = false {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if first && !strings.Contains(strings.Join(record, ""), "@") {
			for i, name := range record {
				if n := strings.ToLower(strings.TrimSpace(name)); n == "email" || n == "address" || n == "email_address" || n == "recipient" {
					column = i
				}
			}
			continue
		}
		if column < len(record) && strings.TrimSpace(record[column]) != "" {
			all = append(all, strings.TrimSpace(record[column]))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no addresses", file)
	}
	return all, nil
}

func shown(g api.Group) string {
	if g.Public {
		return "public"
	}
	return "hidden"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
