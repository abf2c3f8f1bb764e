package api

import (
	"net/http"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
)

// bodies bounds what request bodies take of memory, all together: a body is read
// whole before its handler is called, and is counted until that returns.
type bodies struct {
	most  int64 // bytes
	taken atomic.Int64
}

// take makes room for a body, if there is any.
func (b *bodies) take(n int64) bool {
	if b.taken.Add(n) > b.most && n > 0 {
		b.taken.Add(-n)
		return false
	}
	return true
}

func (b *bodies) give(n int64) { b.taken.Add(-n) }

// bodySize is how much of a request's body may come to be in memory: what it
// says, or the most that is read where it does not say.
func bodySize(r *http.Request, most int64) int64 {
	if r.ContentLength >= 0 {
		return min(r.ContentLength, most)
	}
	return most
}

func tooManyBodies() error {
	return &relay.Error{Code: relay.Busy, Text: "More requests with large bodies are under way than this server takes at once.", Advice: "Try again in some seconds.",
		Retry: time.Now().Add(5 * time.Second)}
}

// largestBody is the largest body of a request: a message in base64, and more.
func (s *Server) largestBody() int64 { return s.config.MessageSize*4/3 + maxBody }
