package api

import (
	"context"
	"net/http"
)

// Loops makes the addresses that providers send complaints to.
type Loops interface {
	// Loop gives the address for a provider's complaints. A relay.Error says that
	// there is none.
	Loop(provider string) (string, error)
}

// LoopAddress is where a provider sends complaints.
type LoopAddress struct {
	Provider string `json:"provider"`
	Address  string `json:"address"`
}

func (s *Server) feedbackRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/feedback/addresses/{provider}", ID: "get-feedback-address", Tag: "Server", Right: Operators,
		Summary: "The address to register for a provider's complaints", Doc: "Programs of providers that report complaints (feedback loops) ask for an address to send them to. This one names the provider and bears a code; mail to any other address is refused. It is always the same one.",
		Example: Example{Params: object{"provider": "yahoo"}, Answer: object{"provider": "yahoo", "address": "f+yahoo.2k5xd3vqhj4c7wna@bounce.relay.example.com"}},
	}, func(_ context.Context, q *struct {
		Provider string `path:"provider" maxLength:"40" pattern:"^[a-z0-9][a-z0-9-]*$" doc:"A name of your own for it: lower case letters, digits and hyphens"`
	}) (*body[LoopAddress], error) {
		address, err := s.config.Loops.Loop(q.Provider)
		return answer(LoopAddress{q.Provider, address}, err)
	})
}
