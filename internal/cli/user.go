package cli

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func userCommand() command {
	return command{name: "user", args: "add EMAIL | list | show EMAIL | set EMAIL | role EMAIL ROLE | members | leave EMAIL", short: "people, and their roles in accounts",
		example: `
postrider user add -name "Ann Smith" ann@example.com
postrider user add -operator -password-stdin root@example.com < password.txt
postrider user role -account webshop ann@example.com admin   # owner, admin, developer or viewer
postrider user members -account webshop
postrider user set -disable ann@example.com
postrider user leave -account webshop ann@example.com`,
		run: runUser}
}

func runUser(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	name := fs.String("name", "", "add, set: the person's `name`")
	email := fs.String("email", "", "set: another e-mail `address`")
	operator := fs.Bool("operator", false, "add, set: sees and manages all accounts")
	disable := fs.Bool("disable", false, "set: can do nothing any more, nor can keys of theirs; -disable=false takes it back")
	passwordStdin := fs.Bool("password-stdin", false, "add, set: read a password from standard input")
	asJSON := fs.Bool("json", false, "print JSON; lists: one object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": 1, "list": 0, "show": 1, "set": 1, "role": 2, "members": 0, "leave": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "add EMAIL, list, show EMAIL, set EMAIL, role EMAIL ROLE, members or leave EMAIL is wanted")
	}
	password := ""
	if *passwordStdin {
		if password, err = readPassword(e); err != nil {
			return err
		}
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	var out api.User
	switch verb {
	case "list":
		return printList(ctx, e, c, "/v1/users", nil, *asJSON, "EMAIL\tID\tNAME\tCREATED\tSPECIAL", func(u api.User) []string {
			return []string{u.Email, u.ID, u.Name, stamp(u.Created), aboutUser(u)}
		})
	case "members":
		return printList(ctx, e, c, "/v1/members", nil, *asJSON, "EMAIL\tROLE\tSINCE\tUSER", func(m api.Member) []string {
			return []string{m.Email, string(m.Role), stamp(m.Since), m.User}
		})
	case "role", "leave":
		return changeMember(ctx, e, c, words, *asJSON)
	case "add":
		c.Account = "" // a user is of no account
		err = c.Post(ctx, "/v1/users", api.NewUser{Email: words[0], Name: *name, Operator: *operator, Password: password}, &out)
	case "show":
		err = c.Get(ctx, where("/v1/users", words[0]), nil, &out)
	case "set":
		c.Account = ""
		g := given(fs)
		err = c.Patch(ctx, where("/v1/users", words[0]), api.UserChange{Name: ifGiven(g, "name", *name, same), Email: ifGiven(g, "email", *email, same),
			Operator: ifGiven(g, "operator", *operator, same), Disabled: ifGiven(g, "disable", *disable, same), Password: ifGiven(g, "password-stdin", password, same)}, &out)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "User %s (%s) %s\n", clean(out.Email), out.ID, aboutUser(out))
	return nil
}

func aboutUser(u api.User) string {
	var s []string
	if u.Operator {
		s = append(s, "operator")
	}
	if u.Disabled != nil {
		s = append(s, "disabled "+stamp(*u.Disabled))
	}
	if !u.Password {
		s = append(s, "no password")
	}
	return strings.Join(s, ", ")
}

// changeMember gives a role, or takes it away where none is named.
func changeMember(ctx context.Context, e *Env, c *api.Client, words []string, asJSON bool) error {
	if len(words) == 1 {
		if err := c.Delete(ctx, where("/v1/members", words[0]), nil); err != nil {
			return err
		}
		if asJSON {
			return printJSON(e.Stdout, map[string]string{"removed": words[0]})
		}
		fmt.Fprintf(e.Stdout, "%s is no member any more.\n", clean(words[0]))
		return nil
	}
	var m api.Member
	if err := c.Post(ctx, "/v1/members", api.NewMember{Email: words[0], Role: relay.Role(words[1])}, &m); err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Stdout, m)
	}
	fmt.Fprintf(e.Stdout, "%s is %s now.\n", clean(m.Email), m.Role)
	return nil
}
