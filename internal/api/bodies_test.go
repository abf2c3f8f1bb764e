package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Bodies that are under way have a bound together; beyond it, requests are told
// to come back, and when there is room they are served.
func TestBodiesTogether(t *testing.T) {
	k := &kept{}
	c := k.config(t)
	c.Bodies = 1000
	s := New(c)
	h := httptest.NewServer(s.Control())
	defer h.Close()
	post := func(body io.Reader, length int64) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL+"/v1/messages", body)
		if err != nil {
			t.Error(err)
			return nil
		}
		req.ContentLength = length
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return nil
		}
		resp.Body.Close()
		return resp
	}
	slow, write := io.Pipe()
	first := make(chan *http.Response)
	go func() { first <- post(slow, 900) }()
	if _, err := write.Write(bytes.Repeat([]byte("x"), 100)); err != nil { // it is on its way
		t.Fatal(err)
	}
	for s.bodies.taken.Load() != 900 {
		if t.Context().Err() != nil {
			t.Fatal("the first is not counted")
		}
	}
	if r := post(bytes.NewReader(make([]byte, 101)), 101); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("beyond the bound: %d %v", r.StatusCode, r.Header)
	}
	if r := post(bytes.NewReader(make([]byte, 100)), 100); r.StatusCode >= 500 {
		t.Errorf("within the bound: %d", r.StatusCode)
	}
	if r := post(io.LimitReader(bytes.NewReader(make([]byte, 10)), 10), -1); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("of a length that is not told: %d", r.StatusCode)
	}
	if r, err := http.Get(h.URL + "/v1/status"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("without a body: %v %v", r, err)
	} else {
		r.Body.Close()
	}
	go func() { write.Write(bytes.Repeat([]byte("x"), 800)); write.Close() }()
	if r := <-first; r == nil || r.StatusCode >= 500 {
		t.Errorf("the first: %v", r)
	}
	if r := post(bytes.NewReader(make([]byte, 1000)), 1000); r.StatusCode >= 500 {
		t.Errorf("when there is room again: %d", r.StatusCode)
	}
}
