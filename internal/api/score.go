package api

import (
	"context"
	"net/http"
	"time"

	"postrider/internal/relay"
	"postrider/internal/report"
	"postrider/internal/reputation"
)

// Scores say how good senders are.
type Scores interface {
	Look(ctx context.Context, account relay.ID, by relay.Dimension, key func(*relay.Count) string, where map[relay.Dimension][]string, history int) ([]reputation.Sender, error)
}

func (s *Server) scoreRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/score", ID: "get-score", Tag: "Reports", Right: Read, OfAccount: true,
		Summary: "How good a sender is", Doc: "From 0 to 100, of what became of its mail; what is old counts less. With what pulls it down, by how many points, and what to do. docs/reports.md has the formula.",
		Example: Example{Params: object{"by": "domain", "days": 2}, Answer: object{"data": []any{object{"key": "shop.example", "score": 83.5, "low": 79.1, "high": 88.2, "mail": 1520.5,
			"reasons": []any{object{"name": "no-such-mailbox", "points": -12.1, "count": 31.2, "rate": 0.02, "text": "Mail went to addresses that do not exist.", "advice": "Clean the list."}},
			"history": []any{object{"day": "2026-02-28", "score": 81.2, "mail": 1400.1}, object{"day": "2026-03-01", "score": 83.5, "mail": 1520.5}}}}}},
	}, s.getScore)
}

// Score is how good a sender is.
type Score struct {
	Key     string        `json:"key,omitempty" doc:"Of the credential, domain, address or account; not there: all mail in one, or not known"`
	Name    string        `json:"name,omitempty" doc:"Of the credential, or the account"`
	Score   float64       `json:"score" minimum:"0" maximum:"100"`
	Low     float64       `json:"low" doc:"With high: between which it is, as far as so much mail can tell"`
	High    float64       `json:"high"`
	Mail    float64       `json:"mail" doc:"Deliveries that it rests on; old ones count in part"`
	Reasons []ScoreReason `json:"reasons" nullable:"false"`
	History []ScoreDay    `json:"history" nullable:"false" doc:"At the end of each day (UTC), the oldest first"`
}

// ScoreReason is what a score lost, or won.
type ScoreReason struct {
	Name   string  `json:"name"`
	Points float64 `json:"points" doc:"Less than zero: pulls down"`
	Count  float64 `json:"count,omitempty" doc:"How often; old ones count in part"`
	Rate   float64 `json:"rate,omitempty" doc:"Of the mail"`
	Text   string  `json:"text"`
	Advice string  `json:"advice,omitempty"`
}

// ScoreDay is what it was.
type ScoreDay struct {
	Day   string  `json:"day" format:"date"`
	Score float64 `json:"score"`
	Mail  float64 `json:"mail"`
}

func (s *Server) getScore(ctx context.Context, in *struct {
	By   string `query:"by" enum:"account,credential,domain,ip" doc:"One for each of these; none: all mail in one"`
	Days int    `query:"days" default:"14" minimum:"0" maximum:"90" doc:"Of history"`
}) (*body[List[Score]], error) {
	name, err := s.names(ctx, in.By)
	if err != nil {
		return nil, err
	}
	by := dimensionOf(in.By)
	found, err := s.config.Scores.Look(ctx, CallerOf(ctx).Account, by, func(c *relay.Count) string { return report.KeyOf(by, c) }, nil, in.Days)
	if err != nil {
		return nil, err
	}
	out := List[Score]{Data: []Score{}}
	for _, f := range found {
		one := Score{Key: f.Key, Name: name(f.Key), Score: f.Value, Low: f.Low, High: f.High, Mail: f.Mail, Reasons: []ScoreReason{}, History: []ScoreDay{}}
		for _, r := range f.Reasons {
			one.Reasons = append(one.Reasons, ScoreReason(r))
		}
		for _, p := range f.History {
			one.History = append(one.History, ScoreDay{Day: p.At.Format(time.DateOnly), Score: p.Value, Mail: p.Mail})
		}
		out.Data = append(out.Data, one)
	}
	return answer(out, nil)
}
