package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postrider/internal/relay"
)

// Problem is an error in the form of RFC 9457.
type Problem struct {
	Title     string       `json:"title" doc:"What the status says"`
	Status    int          `json:"status" doc:"The HTTP status"`
	Detail    string       `json:"detail" doc:"What was wrong, for people"`
	Advice    string       `json:"advice,omitempty" doc:"How to mend it, for people"`
	Code      string       `json:"code" doc:"What kind of error it is, for programs: invalid, bad-address, not-found, rate-limited and so on"`
	Enhanced  string       `json:"enhanced,omitempty" doc:"The enhanced status code that the same refusal has over SMTP (RFC 3463)"`
	RequestID string       `json:"request_id" doc:"Id of the request, as in the header X-Request-Id and in the server's log"`
	Errors    []FieldError `json:"errors,omitempty" doc:"What is wrong with single fields"`

	cause error     // for the log, and for who asks over the control socket
	retry time.Time // when to come back
}

// FieldError is what is wrong with one field.
type FieldError struct {
	Location string `json:"location" doc:"The field: body.to[2], query.limit, path.id, header.Idempotency-Key"`
	Message  string `json:"message" doc:"What is wrong with it"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of problems (RFC 9457 section 3).
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// statuses are the HTTP statuses of the codes of domain errors.
func statusOf(code relay.Code) int {
	switch code {
	case relay.Invalid, relay.BadAddress, relay.BadContent, relay.TooMany, relay.Loop:
		return http.StatusUnprocessableEntity
	case relay.RateLimited:
		return http.StatusTooManyRequests
	case relay.TooLarge:
		return http.StatusRequestEntityTooLarge
	case relay.Unauthenticated:
		return http.StatusUnauthorized
	case relay.Forbidden, relay.Unverified, relay.Suppressed:
		return http.StatusForbidden
	case relay.NotFound:
		return http.StatusNotFound
	case relay.Conflict, relay.Repeated:
		return http.StatusConflict
	case relay.Busy, relay.Unavailable:
		return http.StatusServiceUnavailable
	case relay.Full:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// codeOf is the code of an error that the framework found.
func codeOf(status int) relay.Code {
	switch status {
	case http.StatusUnauthorized:
		return relay.Unauthenticated
	case http.StatusForbidden:
		return relay.Forbidden
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return relay.NotFound
	case http.StatusRequestEntityTooLarge:
		return relay.TooLarge
	case http.StatusInternalServerError:
		return relay.Internal
	default:
		return relay.Invalid
	}
}

// problem makes an error of the domain one of HTTP. A *Problem stays.
func problem(err error) error {
	var p *Problem
	if err == nil || errors.As(err, &p) {
		return err
	}
	var e *relay.Error
	if !errors.As(err, &e) || e.Code == relay.Internal {
		p = &Problem{Status: http.StatusInternalServerError, Code: string(relay.Internal), cause: err,
			Detail: "Something went wrong in the server.", Advice: "Try again; if it stays, give the operator the request's id."}
	} else {
		p = &Problem{Status: statusOf(e.Code), Code: string(e.Code), Detail: e.Text, Advice: e.Advice, Enhanced: e.Enhanced, retry: e.Retry}
		if p.Status >= 500 {
			p.cause = err
		}
	}
	p.Title = http.StatusText(p.Status)
	var at *fieldError
	if errors.As(err, &at) {
		p.Errors = []FieldError{{at.location, p.Detail}}
	}
	return p
}

// fieldError says which field an error is about.
type fieldError struct {
	location string
	err      error
}

func (e *fieldError) Error() string { return e.location + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// at says which field an error is about, unless it is nil.
func at(location string, err error) error {
	if err == nil {
		return nil
	}
	return &fieldError{location, err}
}

// invalid is what is wrong with a field.
func invalid(location, text, advice string) error {
	return at(location, &relay.Error{Code: relay.Invalid, Text: text, Advice: advice})
}

// invalids is what is wrong with several fields.
func invalids(found []FieldError) error {
	if len(found) == 0 {
		return nil
	}
	return &Problem{Title: http.StatusText(http.StatusUnprocessableEntity), Status: http.StatusUnprocessableEntity, Code: string(relay.Invalid),
		Detail: summary(found), Errors: found}
}

func summary(found []FieldError) string {
	if len(found) == 1 {
		return strings.TrimPrefix(strings.TrimPrefix(found[0].Location, "body."), "query.") + ": " + found[0].Message
	}
	return fmt.Sprintf("%d fields are not right.", len(found))
}

// finish completes a problem before it is written: with the request's id, and
// in our words where the framework found it.
func (s *Server) finish(ctx huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		v = s.reword(ctx, m)
	}
	p, ok := v.(*Problem)
	if !ok {
		return v, nil
	}
	x := exchangeOf(ctx.Context())
	p.RequestID = x.id
	if p.cause != nil {
		if p.Status == http.StatusInternalServerError && x.control {
			p.Detail = p.cause.Error() // the operator asks
		}
		x.failure = p.cause
	}
	if !p.retry.IsZero() {
		ctx.SetHeader("Retry-After", strconv.FormatInt(max(1, int64(time.Until(p.retry).Seconds()+0.999)), 10))
	}
	if p.Status == http.StatusUnauthorized {
		ctx.AppendHeader("WWW-Authenticate", `Bearer realm="postrider"`)
		ctx.AppendHeader("WWW-Authenticate", `Basic realm="postrider", charset="UTF-8"`)
	}
	return p, nil
}

// reword makes a problem of what the framework found.
func (s *Server) reword(ctx huma.Context, m *huma.ErrorModel) *Problem {
	p := &Problem{Title: m.Title, Status: m.Status, Detail: m.Detail, Code: string(codeOf(m.Status))}
	for _, e := range m.Errors {
		if e == nil {
			continue
		}
		f := FieldError{e.Location, e.Message}
		if name, ok := strings.CutPrefix(f.Message, "expected required property "); ok {
			f.Location, f.Message = f.Location+"."+strings.TrimSuffix(name, " to be present"), "it is missing"
		}
		if strings.HasPrefix(f.Message, "expected value to match exactly one schema") { // the only one: Address
			f.Message = `want "user@example.com", "Name <user@example.com>", or an object with email and name`
		}
		f.Message = strings.Replace(f.Message, "unexpected property", "there is no such field", 1)
		p.Errors = append(p.Errors, f)
	}
	switch {
	case m.Status == http.StatusRequestEntityTooLarge:
		p.Detail = fmt.Sprintf("The request is larger than %s, the most that is taken here.", bytesText(ctx.Operation().MaxBodyBytes))
	case m.Status == http.StatusRequestTimeout:
		p.Detail = "The request did not come in time."
	case m.Status == http.StatusUnsupportedMediaType:
		p.Detail, p.Advice = "This content type is not taken here.", "Send application/json."
	case m.Status == http.StatusInternalServerError:
		return problem(errors.Join(append([]error{errors.New(m.Detail)}, detailErrors(m.Errors)...)...)).(*Problem)
	case m.Detail == "request body is required":
		p.Detail, p.Advice = "The request has no body.", "Send a JSON object."
	case len(p.Errors) > 0:
		p.Detail = summary(p.Errors)
	}
	return p
}

func detailErrors(found []*huma.ErrorDetail) (out []error) {
	for _, e := range found {
		if e != nil {
			out = append(out, e)
		}
	}
	return out
}

func bytesText(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d KB", n>>10)
}
