package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postrider/internal/api"
	"postrider/internal/relay"
)

// TestImportGoesOn: what a server does not take of a list, or not all at once, keeps
// nothing else of it out, and a list that breaks off says how far it came.
func TestImportGoesOn(t *testing.T) {
	taken, requests, away := map[string]int{}, 0, -1 // requests until the store is
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		away--
		refuse := func(status int, code relay.Code, text string) {
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(api.Problem{Status: status, Code: string(code), Detail: text})
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var in api.NewSuppressions
		if err := json.Unmarshal(b, &in); err != nil {
			t.Error(err)
		}
		switch {
		case away == 0:
			refuse(503, relay.Unavailable, "The store is away.")
			return
		case len(b) > 4<<20:
			refuse(413, relay.TooLarge, "The request is larger than 4 MB.")
			return
		}
		for _, s := range in.Data {
			if strings.HasPrefix(s.Address, "odd") {
				refuse(400, relay.Invalid, s.Address+" is no good.")
				return
			}
		}
		for _, s := range in.Data {
			taken[s.Address]++
		}
		json.NewEncoder(w).Encode(api.AddedSuppressions{Added: int64(len(in.Data))})
	}))
	defer server.Close()
	c, err := api.NewRemote(server.URL, "key")
	if err != nil {
		t.Fatal(err)
	}
	run := func(list string) (string, error) {
		var out, told bytes.Buffer
		err := importSuppressions(t.Context(), &Env{Stdin: strings.NewReader(list), Stdout: &out, Stderr: &told}, c, "-", api.NewSuppression{}, false)
		return out.String() + told.String(), err
	}
	var list strings.Builder
	list.WriteString("email,reason,detail,expires_at\n")
	for i := range 3 * importBatch {
		name := "a"
		if i%2000 == 1000 {
			name = "odd"
		}
		fmt.Fprintf(&list, "%s%d@x.test,hard-bounce,%s,\n", name, i, strings.Repeat("宛", 250)) // five megabytes in one request
	}
	for range 1000 {
		list.WriteString("past@x.test,soft-bounce,full,2020-01-01 00:00:00\n")
	}
	said, err := run(list.String())
	if err != nil || !strings.Contains(said, "16000 lines: 14993 added, 0 known before, 1007 refused.") || !strings.Contains(said, "odd1000@x.test is no good") || !strings.Contains(said, "ended on 2020-01-01") {
		t.Errorf("%s%v", said, err)
	}
	if len(taken) != 14993 || requests > 300 {
		t.Errorf("%d were taken, in %d requests", len(taken), requests)
	}
	away = 1
	if said, err := run("a@x.test\nb@x.test\n"); err == nil || strings.Contains(err.Error(), "broken off") || !strings.Contains(err.Error(), "The store is away") {
		t.Errorf("%s%v", said, err)
	}
	away = 2
	if said, err := run(strings.Repeat("a@x.test\n", importBatch+1)); err == nil || !strings.Contains(err.Error(), "broken off after 5000 lines (5000 added") || !strings.Contains(err.Error(), "The store is away") {
		t.Errorf("%s%v", said, err)
	}
}
