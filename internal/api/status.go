package api

import (
	"context"
	"net/http"
	"strings"

	"postrider/internal/queue"
	"postrider/internal/relay"
)

// Status is the answer to GET /v1/status.
type Status struct {
	Info
	Condition string      `json:"condition" enum:"working,draining,without store,suspended" doc:"suspended: the store has been away for so long that nothing is begun"`
	Queue     queue.Stats `json:"queue"`
}

// Me is who asks, and what they may do.
type Me struct {
	Name       string   `json:"name" doc:"As it stands in the audit log"`
	Account    string   `json:"account,omitempty" doc:"Id of the account that is seen and changed; none: all of them"`
	Credential string   `json:"credential,omitempty" doc:"Id of the key"`
	Rights     []string `json:"rights" nullable:"false" doc:"send: submit mail. read: see everything. build: change domains, senders, credentials, suppressions. manage: change members, sub-accounts, rules. own, control: close the account, change its limits. operate: all of the relay"`
}

func (s *Server) statusRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/status", ID: "status", Tag: "Server", Right: Operators,
		Summary: "How this node is",
		Example: Example{Answer: map[string]any{"version": "0.1.0", "hostname": "relay.example.com", "node": "relay-1", "started": "2026-03-01T08:00:00Z",
			"listeners": map[string]any{":587": "[::]:587"}, "condition": "working", "queue": queue.Stats{InHand: 12, InFlight: 3, Bytes: 81920, Peak: 40}}},
	}, func(context.Context, *struct{}) (*body[Status], error) {
		return answer(Status{s.config.Info, s.config.Condition().String(), s.config.Queue.Stats()}, nil)
	})
	Register(s, Route{Method: http.MethodGet, Path: "/v1/me", ID: "me", Tag: "Server", Right: Anyone, OfAccount: true,
		Summary: "Who asks, and what they may do", Doc: "To find out whether a key is good, and what it is good for.",
		Example: Example{Answer: map[string]any{"name": "key webshop", "account": ExampleAccount, "credential": ExampleCredential, "rights": []any{"send", "read"}}},
	}, func(ctx context.Context, _ *struct{}) (*body[Me], error) {
		c := CallerOf(ctx)
		me := Me{Name: c.Name, Rights: strings.Fields(c.Rights.String())}
		if c.Account != relay.Everyone {
			me.Account = c.Account.String()
		}
		if !c.Credential.IsZero() {
			me.Credential = c.Credential.String()
		}
		return answer(me, nil)
	})
}
