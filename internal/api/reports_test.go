package api_test

import (
	"encoding/csv"
	"strings"
	"testing"

	"postrider/internal/api"
)

// Reports are JSON or CSV, as is asked for; what others wrote is no formula.
func TestReports(t *testing.T) {
	w := newWorld(t)
	var r api.Counts
	a := w.ask(keyOfShop, "GET", "/v1/reports/counts?by=credential&interval=day&zone=Europe/Berlin", nil)
	w.decode(a, &r)
	// A week of hours is 8 days of Berlin, or 9, or 7 when its clocks were put back.
	if n := len(r.Lines); n < 7 || n > 9 || r.Lines[0].Name != "webshop" || r.Total.Sent == nil || *r.Total.Sent < 2 {
		t.Errorf("%s", a.body)
	}
	for _, header := range [][]string{{"Accept", "text/csv"}, nil} {
		path := "/v1/reports/counts?by=domain"
		if header == nil {
			path += "&format=csv"
		}
		a := w.ask(keyOfShop, "GET", path, nil, header...)
		rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
		if err != nil || a.status != 200 || len(rows) < 2 || rows[0][1] != "key" || rows[1][1] != "shop.example" || len(rows[1]) != len(rows[0]) {
			t.Errorf("%s: %d %s, %v", path, a.status, a.body, err)
		}
	}
	if a := w.ask(keyOfShop, "GET", "/v1/reports/failures?kinds=eaten&format=csv", nil); a.status != 422 || !strings.Contains(string(a.body), "query.kinds") {
		t.Errorf("%d %s", a.status, a.body)
	}
	for path, status := range map[string]int{"timing?format=csv": 200, "failures?format=csv": 200, "counts?zone=Mars/North": 422, "counts?credential=nobody": 404,
		"counts?credential=-&provider=-,Gmail": 200, "counts?by=colour": 422, "counts?interval=hour&since=2020-01-01T00:00:00Z": 422, "timing?by=account": 200} {
		if a := w.ask(keyOfShop, "GET", "/v1/reports/"+path, nil); a.status != status {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, status)
		}
	}
	var list api.List[api.Score]
	w.decode(w.ask(keyOfOperator, "GET", "/v1/score?days=3", nil), &list)
	if len(list.Data) != 1 || len(list.Data[0].History) != 3 || list.Data[0].Score < 70 {
		t.Errorf("score %+v", list)
	}
}
