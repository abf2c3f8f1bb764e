package api

import (
	"context"
	"time"
)

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

func (a *API) listNodes(ctx context.Context, _ *struct{}) (*body[[]Node], error) {
	found, err := a.Nodes.Nodes(ctx)
	out := make([]Node, 0, len(found))
	for _, n := range found {
		state := "alive"
		switch {
		case n.Dead():
			state = "dead"
		case n.Draining:
			state = "draining"
		}
		out = append(out, Node{Name: n.Name, State: state, Version: n.Version, Joined: n.Joined, Silent: max(0, n.Silent).Round(100 * time.Millisecond).Seconds(),
			InHand: n.InHand, Self: n.Name == a.Info.Node})
	}
	return answer(out, err)
}

type nodeQuery struct {
	Name string `path:"name" doc:"Name of the node"`
}

func (a *API) drainNode(ctx context.Context, q *nodeQuery) (*struct{}, error) {
	return nil, problemOrNil(a.Nodes.Drain(ctx, q.Name, true))
}

func (a *API) undrainNode(ctx context.Context, q *nodeQuery) (*struct{}, error) {
	return nil, problemOrNil(a.Nodes.Drain(ctx, q.Name, false))
}

func problemOrNil(err error) error {
	if err == nil {
		return nil
	}
	return problem(err)
}
