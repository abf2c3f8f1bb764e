package api

import (
	"context"
	"net/http"

	"postrider/internal/doctor"
	"postrider/internal/relay"
)

// Doctor looks whether the relay is fit to deliver.
type Doctor interface {
	Examine(ctx context.Context) []relay.Finding
}

// Examination is the answer to GET /v1/doctor.
type Examination struct {
	Verdict  relay.Verdict   `json:"verdict" enum:"good,warning,bad" doc:"The worst of the findings"`
	Findings []relay.Finding `json:"findings" nullable:"false"`
}

func (s *Server) doctorRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/doctor", ID: "doctor", Tag: "Server", Right: Operators,
		Summary: "Whether the relay is fit to deliver", Doc: "It looks at names, addresses, ports, certificate, clock, disk, store, blocklists and sending domains, and asks others for that. It may take a minute and a half.",
		Example: Example{Answer: object{"verdict": "warning", "findings": []any{object{"check": "ptr", "name": "192.0.2.25", "type": "PTR", "status": "warning", "found": []string{"host25.isp.example"},
			"expected": []string{"relay.example.com"}, "text": "The reverse name leads back to the address, but is not the one that the relay says in EHLO.", "advice": "Whoever gave you the address sets its reverse name."}}}},
	}, func(ctx context.Context, _ *struct{}) (*body[Examination], error) {
		found := s.config.Doctor.Examine(ctx)
		return answer(Examination{doctor.Worst(found), found}, ctx.Err())
	})
}
