package cli

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"postrider/internal/api"
)

// A story that comes in parts is told whole, its events in their order.
func TestStoryInParts(t *testing.T) {
	parts := map[string]string{
		"":    `{"id":"m","next":"m-1","deliveries":[{"id":"m-1"}],"events":[{"id":"1"},{"id":"3"}]}`,
		"m-1": `{"id":"m","deliveries":[{"id":"m-2"}],"events":[{"id":"2"}],"events_cut":true}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(parts[r.URL.Query().Get("cursor")])); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	c, err := api.NewRemote(server.URL, "key")
	if err != nil {
		t.Fatal(err)
	}
	s, err := story(t.Context(), c, "m")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Deliveries) != 2 || s.Next != "" || !s.Cut || len(s.Events) != 3 || s.Events[1].ID != "2" {
		t.Errorf("%+v", s)
	}
}
