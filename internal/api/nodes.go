package api

import (
	"context"
	"net/http"
	"time"
)

func (s *Server) nodeRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/nodes", ID: "list-nodes", Tag: "Server", Right: Operators,
		Summary: "The nodes that share the store",
		Example: Example{Answer: map[string]any{"data": []any{map[string]any{"name": "relay-1", "state": "alive", "version": "0.1.0", "joined": "2026-03-01T08:00:00Z",
			"silent": 1.5, "in_hand": 12, "self": true}}}},
	}, s.listNodes)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/nodes/{name}/drain", ID: "drain-node", Tag: "Server", Right: Operators,
		Summary: "Drain a node before it is stopped", Doc: "It takes no more mail, gives back what it has not begun, and ends what is under way.",
		Example: Example{Params: map[string]any{"name": "relay-1"}},
	}, s.drainNode)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/nodes/{name}/drain", ID: "undrain-node", Tag: "Server", Right: Operators,
		Summary: "Let a node work again",
		Example: Example{Params: map[string]any{"name": "relay-1"}},
	}, s.undrainNode)
}

// Node is one of those that share the store.
type Node struct {
	Name    string    `json:"name"`
	State   string    `json:"state" enum:"alive,draining,dead" doc:"dead: it has not been heard of for too long; the others take over what it had in hand"`
	Version string    `json:"version"`
	Joined  time.Time `json:"joined" doc:"When this incarnation joined, by the store's clock"`
	Silent  float64   `json:"silent" doc:"Seconds since it was last heard of, by the store's clock"`
	InHand  int64     `json:"in_hand" doc:"Deliveries that it works on or is about to"`
	Self    bool      `json:"self" doc:"The node that answers"`
}

func (s *Server) listNodes(ctx context.Context, _ *struct{}) (*body[List[Node]], error) {
	found, err := s.config.Nodes.Nodes(ctx)
	out := List[Node]{Data: make([]Node, 0, len(found))}
	for _, n := range found {
		state := "alive"
		switch {
		case n.Dead():
			state = "dead"
		case n.Draining:
			state = "draining"
		}
		out.Data = append(out.Data, Node{Name: n.Name, State: state, Version: n.Version, Joined: n.Joined, Silent: max(0, n.Silent).Round(100 * time.Millisecond).Seconds(),
			InHand: n.InHand, Self: n.Name == s.config.Info.Node})
	}
	return answer(out, err)
}

type nodeQuery struct {
	Name string `path:"name" doc:"Name of the node"`
}

func (s *Server) drainNode(ctx context.Context, q *nodeQuery) (*struct{}, error) {
	return nil, s.config.Nodes.Drain(ctx, q.Name, true)
}

func (s *Server) undrainNode(ctx context.Context, q *nodeQuery) (*struct{}, error) {
	return nil, s.config.Nodes.Drain(ctx, q.Name, false)
}
