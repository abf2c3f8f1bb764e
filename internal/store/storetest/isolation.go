package storetest

import (
	"crypto/sha256"
	"reflect"
	"slices"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// belongings are one of each thing that an account can have.
type belongings struct {
	account    *relay.Account
	user       *relay.User
	credential *relay.Credential
	domain     *relay.Domain
	sender     *relay.Sender
	mail       *relay.Submission
	webhook    *relay.Webhook
	group      *relay.Group
	alert      *relay.Alert
	channel    *relay.AlertChannel
}

// isolated are the methods that find what is the account's own, each asked for
// things of another: they give an error NotFound, or a number of things found or
// changed that must be 0.
var isolated = map[string]func(f *fixture, as relay.ID, of belongings) (found int, err error){
	"Account": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Account(f.Context(), as, of.account.ID))
	},
	"AccountByName": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.AccountByName(f.Context(), as, of.account.Name))
	},
	"Accounts": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Accounts(f.Context(), as, relay.ID{}, 0)
		return count(all, func(a *relay.Account) bool { return a.ID == of.account.ID }), err
	},
	"SetAccount": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.account
		return 0, f.db.SetAccount(f.Context(), somebody, as, &mine)
	},
	"User": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.User(f.Context(), as, of.user.ID))
	},
	"Users": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Users(f.Context(), as, relay.ID{}, 0)
		return len(all), err
	},
	"SetUser": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.user
		return 0, f.db.SetUser(f.Context(), somebody, as, &mine)
	},
	"Members": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Members(f.Context(), as)
		return len(all), err
	},
	"RemoveMember": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RemoveMember(f.Context(), somebody, as, of.user.ID)
	},
	"Credential": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Credential(f.Context(), as, of.credential.ID))
	},
	"Credentials": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Credentials(f.Context(), as)
		return len(all), err
	},
	"SetCredential": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.credential
		mine.Account = as
		return 0, f.db.SetCredential(f.Context(), somebody, as, &mine)
	},
	"RevokeCredential": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RevokeCredential(f.Context(), somebody, as, of.credential.ID, noon)
	},
	"Domain": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Domain(f.Context(), as, of.domain.ID))
	},
	"DomainByName": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.DomainByName(f.Context(), as, of.domain.Name))
	},
	"NearestDomain": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.NearestDomain(f.Context(), as, []string{of.domain.Name}))
	},
	"Domains": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Domains(f.Context(), as, relay.ID{}, 0)
		return len(all), err
	},
	"SetDomain": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.domain
		mine.Account = as
		return 0, f.db.SetDomain(f.Context(), somebody, as, &mine)
	},
	"CheckedDomain": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.domain
		return 0, f.db.CheckedDomain(f.Context(), somebody, as, &mine)
	},
	"RemoveDomain": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RemoveDomain(f.Context(), somebody, as, of.domain.ID)
	},
	"Sender": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Sender(f.Context(), as, of.sender.Address))
	},
	"Senders": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Senders(f.Context(), as, relay.ID{}, 0)
		return len(all), err
	},
	"SetSender": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.SetSender(f.Context(), somebody, as, of.sender)
	},
	"RemoveSender": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RemoveSender(f.Context(), somebody, as, of.sender.ID)
	},
	"Suppressed": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Suppressed(f.Context(), as, 0, []string{"a@x.test"})
		return len(all), err
	},
	"Suppressions": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Suppressions(f.Context(), as, relay.SuppressionFilter{})
		return len(all), err
	},
	"Untracked": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Untracked(f.Context(), as, "", relay.Untracked{}, 0)
		return len(all), err
	},
	"IsUntracked": func(f *fixture, as relay.ID, of belongings) (int, error) {
		found, err := f.db.IsUntracked(f.Context(), as, []string{"a@x.test"})
		if found {
			return 1, err
		}
		return 0, err
	},
	"Retrack": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.Retrack(f.Context(), somebody, as, "a@x.test")
	},
	"Unsuppress": func(f *fixture, as relay.ID, of belongings) (int, error) {
		n, err := f.db.Unsuppress(f.Context(), somebody, as, relay.Unsuppression{Addresses: []string{"a@x.test"}})
		return int(n), err
	},
	"Group": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Group(f.Context(), as, of.group.ID))
	},
	"Groups": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Groups(f.Context(), as, "", 0)
		return len(all), err
	},
	"SetGroup": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.group
		mine.Account = as
		return 0, f.db.SetGroup(f.Context(), somebody, as, &mine)
	},
	"RemoveGroup": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RemoveGroup(f.Context(), somebody, as, of.group.ID, true)
	},
	"LeaveGroup": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.LeaveGroup(f.Context(), somebody, as, of.group.ID, []relay.Leaver{{Address: "new@x.test", Created: noon}}))
	},
	"RejoinGroup": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.RejoinGroup(f.Context(), somebody, as, of.group.ID, []string{"a@x.test"}))
	},
	"Left": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Left(f.Context(), as, of.group.ID, []string{"a@x.test"})
		return len(all), err
	},
	"LeftBy": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.LeftBy(f.Context(), as, "a@x.test")
		return len(all), err
	},
	"Leavers": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Leavers(f.Context(), as, of.group.ID, relay.LeaverFilter{})
		return len(all), err
	},
	"Changes": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Changes(f.Context(), as, relay.ChangeFilter{})
		return count(all, func(c *relay.Change) bool { return c.Account == of.account.ID }), err
	},
	"Usage": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Usage(f.Context(), as, noon)
		return len(all), err
	},
	"Outcomes": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Outcomes(f.Context(), as, noon.Add(-time.Hour), noon.Add(48*time.Hour))
		return len(all), err
	},
	"Recent": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Recent(f.Context(), as, noon.Add(-time.Hour))
		return len(all), err
	},
	"Counts": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Counts(f.Context(), as, relay.CountFilter{})
		return len(all), err
	},
	"Example": func(f *fixture, as relay.ID, of belongings) (int, error) {
		id, err := f.db.Example(f.Context(), as, relay.CountFilter{})
		return min(id.N, 1), err
	},
	"Alert": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Alert(f.Context(), as, of.alert.ID))
	},
	"Alerts": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Alerts(f.Context(), as, relay.AlertFilter{})
		return len(all), err
	},
	"AlertSends": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.AlertSends(f.Context(), as, of.alert.ID)
		return len(all), err
	},
	"TakeAlert": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.TakeAlert(f.Context(), somebody, as, of.alert.ID, "alert.mute", func(a *relay.Alert) { a.Muted = noon }))
	},
	"AlertChannel": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.AlertChannel(f.Context(), as, of.channel.ID))
	},
	"AlertChannels": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.AlertChannels(f.Context(), as, relay.ID{}, 0)
		return len(all), err
	},
	"RemoveAlertChannel": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RemoveAlertChannel(f.Context(), somebody, as, of.channel.ID)
	},
	"AlertRules": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.AlertRules(f.Context(), as)
		return len(all), err
	},
	"SeenReplies": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.SeenReplies(f.Context(), as, [2]relay.Kind{relay.EventDelivered, relay.EventBounced}, noon.Add(-time.Hour), 1000)
		return len(all), err
	},
	"Webhook": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Webhook(f.Context(), as, of.webhook.ID))
	},
	"Webhooks": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Webhooks(f.Context(), as, relay.ID{}, 0)
		return len(all), err
	},
	"SetWebhook": func(f *fixture, as relay.ID, of belongings) (int, error) {
		mine := *of.webhook
		mine.Account = as
		return 0, f.db.SetWebhook(f.Context(), somebody, as, &mine)
	},
	"ReplayWebhook": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.ReplayWebhook(f.Context(), somebody, as, of.webhook.ID, noon)
	},
	"RemoveWebhook": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, f.db.RemoveWebhook(f.Context(), somebody, as, of.webhook.ID)
	},
	"WebhookProgress": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.WebhookProgress(f.Context(), as, of.webhook.ID))
	},
	"WebhookFailures": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.WebhookFailures(f.Context(), as, of.webhook.ID, relay.ID{}, 0)
		return len(all), err
	},
	"ScanEvents": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, _, err := f.db.ScanEvents(f.Context(), as, relay.ID{}, relay.Everyone, 1000)
		return len(all), err
	},
	"Heads": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Heads(f.Context(), as, relay.ID{}, 1000)
		return len(all), err
	},
	"EventsByID": func(f *fixture, as relay.ID, of belongings) (int, error) {
		heads, _, err := f.db.ScanEvents(f.Context(), of.account.ID, relay.ID{}, relay.Everyone, 1000)
		if err != nil {
			return 0, err
		}
		all, err := f.db.EventsByID(f.Context(), as, []relay.ID{heads[0].ID})
		return len(all), err
	},
	"EventsOf": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.EventsOf(f.Context(), as, of.mail.Message.ID, relay.ID{}, 10)
		return len(all), err
	},
	"Deliveries": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Deliveries(f.Context(), as, relay.DeliveryFilter{})
		return len(all), err
	},
	"Find": func(f *fixture, as relay.ID, of belongings) (int, error) {
		page, err := f.db.Find(f.Context(), as, relay.DeliveryFilter{Recipient: "x.test"}, time.Minute)
		if err != nil {
			return 0, err
		}
		return len(page.Found), nil
	},
	"Events": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Events(f.Context(), as, relay.ID{}, 100)
		return len(all), err
	},
	"EventPage": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, _, err := f.db.EventPage(f.Context(), as, relay.ID{}, 100, time.Minute)
		return len(all), err
	},
	"Backlog": func(f *fixture, as relay.ID, of belongings) (int, error) {
		all, err := f.db.Backlog(f.Context(), as, relay.BacklogFilter{})
		return len(all), err
	},
	"Story": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.Story(f.Context(), as, of.mail.Message.ID))
	},
	"StoryPart": func(f *fixture, as relay.ID, of belongings) (int, error) {
		return 0, second(f.db.StoryPart(f.Context(), as, of.mail.Message.ID, relay.StoryPart{Deliveries: 1, Events: 1}))
	},
	"Settle": func(f *fixture, as relay.ID, of belongings) (int, error) {
		o := order(of.mail.Deliveries[1], relay.EventCancelled, noon)
		o.Account = as
		return 0, f.db.Settle(f.Context(), 0, []relay.Outcome{o})[0]
	},
	"Commit": func(f *fixture, as relay.ID, of belongings) (int, error) {
		o := order(of.mail.Deliveries[1], relay.EventCancelled, noon)
		o.Account = as
		_, ends := f.db.Commit(f.Context(), 0, nil, []relay.Outcome{o})
		return 0, ends[0]
	},
}

// unbound are the other methods: the node's own work, what makes something new
// for the account that it names, and what finds out whose something is.
var unbound = []string{
	// making
	"EnsureAccount", "AddAccount", "AddUser", "SetMember", "AddCredential", "AddDomain", "AddSender", "AddWebhook", "AddAlertChannel", "SetAlertRules", "AddGroup", "Suppress", "Untrack", "Note", "Put", "TakeUsage",
	// logging in, and the links that verify
	"CredentialByUser", "CredentialByKey", "NetworkCredentials", "UseCredentials", "UserByEmail", "Memberships", "SenderByToken",
	// of no account
	"SetPlan", "RemovePlan", "Plan", "Plans", "PutFile", "EnsureFile", "File", "Files", "RemoveFile", "Lock", "Unlock", "CountTLS", "TLSDomains", "TLSCounts", "DropTLS",
	"DirectoryChanged", "Sweep", "MergeCounts", "DropCounts", "Backup", "Close", "Now", "Ahead",
	// the node's work
	"Beat", "Claim", "Class", "Content", "DueDomains", "Drain", "EndNotice", "Held", "Join", "Leave", "Linked", "News", "Nodes", "Notices", "Reap", "Release", "Tally", "Waiting",
	"ServeWebhooks", "YieldWebhooks", "SaveWebhooks", "Tail", "LastEvent", "Horizon",
	"AddReturned", "Returned", "ReturnedAccounts", "ReturnedAbout", "OldestReturned", "EndReturned", "SuppressionsAdded", "SuppressionNews", "SuppressionKeys", "OnSuppress",
	"IndexLog", "MergeLog", "CleanLog", "LogIndexSize", "DropLog", "DropContent", "Keeps",
	"PutAlert", "OpenAlerts", "EndAlerts", "DueAlertSends", "SetAlertSend", "WebhooksInTrouble",
}

var isolationTests = []test{
	{"every method is looked at", func(f *fixture) {
		var methods []string
		for m := range reflect.TypeFor[*store.DB]().Methods() {
			methods = append(methods, m.Name)
			_, bound := isolated[m.Name]
			if bound == slices.Contains(unbound, m.Name) {
				f.Errorf("%s is in both tables, or in none: say whether it keeps to one account", m.Name)
			}
		}
		for name := range isolated {
			if !slices.Contains(methods, name) {
				f.Errorf("there is no method %s", name)
			}
		}
	}},
	{"of every method", func(f *fixture) {
		of := f.belongings()
		other, child := f.account("other", relay.ID{}), f.account("child of other", relay.ID{})
		version := f.version()
		own, err := f.db.Changes(f.Context(), of.account.ID, relay.ChangeFilter{})
		f.must(err)
		for name, ask := range isolated {
			for who, as := range map[string]relay.ID{"another account": other.ID, "its child": child.ID, "nobody": {}, "a user": of.user.ID} {
				if found, err := ask(f, as, of); found != 0 || err != nil && relay.CodeOf(err) != relay.NotFound {
					f.Errorf("%s as %s: found %d, %v", name, who, found, err)
				} else if single := found == 0 && err == nil; single != listing(name) {
					f.Errorf("%s as %s: %v", name, who, err)
				}
			}
		}
		after, err := f.db.Changes(f.Context(), of.account.ID, relay.ChangeFilter{})
		f.must(err)
		if f.version() != version || len(after) != len(own) {
			f.Errorf("something was changed: %v", actions(after[:max(len(after)-len(own), 0)]))
		}
		// The account itself may do it all.
		for name, ask := range isolated {
			if found, err := ask(f, of.account.ID, of); listing(name) && found == 0 || err != nil {
				f.Errorf("%s as the account itself: %d, %v", name, found, err)
			}
			of = f.again(of)
		}
	}},
}

// listing tells whether a method gives a list, or a number, rather than an error.
func listing(name string) bool {
	return name == "Find" || slices.Contains([]string{"Accounts", "Users", "Members", "Credentials", "Domains", "Senders", "Suppressed", "Suppressions", "Unsuppress", "Untracked", "IsUntracked", "Changes",
		"Usage", "Outcomes", "Recent", "Alerts", "AlertSends", "AlertChannels", "AlertRules", "SeenReplies", "Counts", "Example", "Backlog", "Deliveries", "Events", "EventPage", "Webhooks", "WebhookFailures", "Groups", "Left", "LeftBy", "Leavers", "ScanEvents", "Heads", "EventsByID", "EventsOf"}, name)
}

func count[T any](all []T, is func(T) bool) (n int) {
	for _, v := range all {
		if is(v) {
			n++
		}
	}
	return n
}

// belongings makes an account that has one of each.
func (f *fixture) belongings() belongings {
	f.Helper()
	return f.again(belongings{account: f.account("owner "+NewID(noon).String(), relay.ID{})})
}

// again makes whatever an account has not, or has no longer.
func (f *fixture) again(of belongings) belongings {
	f.Helper()
	account := of.account.ID
	serial := NewID(noon).String()
	of.account = f.get(f.db.Account(f.Context(), relay.Everyone, account)).(*relay.Account)
	of.user = f.user(serial + "@example.com")
	f.must(f.db.SetMember(f.Context(), somebody, relay.Member{Account: account, User: of.user.ID, Role: relay.Admin, Since: noon}))
	_, key, _ := credentials(account)
	sum := sha256.Sum256([]byte(serial))
	key.SecretSHA256 = sum[:]
	f.must(f.db.AddCredential(f.Context(), somebody, key))
	of.credential = key
	of.domain = f.domain(account, serial+".example")
	of.sender = &relay.Sender{ID: NewID(noon), Account: account, Address: serial + "@x.test", Token: sum[:], Asked: noon}
	f.must(f.db.AddSender(f.Context(), somebody, of.sender))
	of.webhook = f.webhook(account)
	f.failed(of.webhook)
	of.group = f.group(account, "news "+serial)
	if _, err := f.db.LeaveGroup(f.Context(), somebody, account, of.group.ID, []relay.Leaver{{Address: "a@x.test", Created: noon}}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.db.Suppress(f.Context(), somebody, account, []relay.Suppression{{Account: account, Address: "a@x.test", Reason: "manual", Created: noon}}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.db.Untrack(f.Context(), somebody, relay.Untracked{Account: account, Address: "a@x.test", Created: noon}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.db.TakeUsage(f.Context(), []relay.Take{{Account: account, Subject: "x", Start: noon.Add(-time.Hour), End: noon.Add(time.Hour), Want: 1, Most: 100}}); err != nil {
		f.Fatal(err)
	}
	of.alert, of.channel = f.alert(account, serial), f.channel(account)
	if rules, err := f.db.AlertRules(f.Context(), account); err != nil || len(rules) == 0 {
		f.must(err)
		f.must(f.db.SetAlertRules(f.Context(), somebody, &relay.AlertRules{Account: account}))
	}
	of.mail = Submission(account, noon, []byte("x"), "a@x.test", "b@x.test")
	of.mail.InHand = false
	f.put(0, of.mail)
	f.settle(0, order(of.mail.Deliveries[0], relay.EventCancelled, noon))
	done := Submission(account, noon, []byte("x"), "c@x.test")
	f.put(f.lease, done)
	f.settle(f.lease, outcome(done.Deliveries[0], relay.EventDelivered))
	return of
}
