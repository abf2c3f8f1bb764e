package api

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postrider/internal/relay"
	"postrider/internal/report"
)

const reportDoc = "Times count in the hour that they happened in. With Accept: text/csv, or format=csv, the answer is a table. docs/reports.md says what each figure means."

func (s *Server) reportRoutes() {
	rates := object{"delivery": 0.98, "bounce": 0.02, "hard_bounce": 0.02, "soft_bounce": 0, "block_bounce": 0, "expiry": 0, "deferral": 0.1, "complaint": 0.001,
		"open": 0.5, "person_open": 0.3, "click": 0.1, "person_click": 0.08, "unsubscribe": 0}
	line := func(more object) object {
		all := object{"delivered": 981, "deferred": 100, "bounced": 20, "hard": 20, "soft": 0, "block": 0, "late": 1, "expired": 0, "cancelled": 0, "complained": 1,
			"opened": 490, "person_opened": 294, "opens": 700, "machine_opens": 300, "clicked": 98, "person_clicked": 78, "clicks": 120, "machine_clicks": 30, "unsubscribed": 0, "rates": rates}
		for k, v := range more {
			all[k] = v
		}
		return all
	}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/reports/counts", ID: "report-counts", Tag: "Reports", Right: Read, OfAccount: true,
		Summary: "What became of mail, and how often", Doc: "Figures and rates by one of the things that they are told apart by, in intervals of time, with the total and that of the time as long just before. " + reportDoc,
		Example: Example{Params: object{"by": "provider", "interval": "day", "tag": "order"},
			Answer: object{"since": "2026-02-22T08:30:00Z", "until": ExampleTime, "by": "provider", "interval": "day",
				"lines": []any{line(object{"start": "2026-02-28T00:00:00Z", "key": "Gmail"})}, "total": line(object{"sent": 1001}), "before": line(object{"sent": 1001})}},
	}, s.reportCounts)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/reports/timing", ID: "report-timing", Tag: "Reports", Right: Read, OfAccount: true,
		Summary: "How long delivery took", Doc: "Seconds within which 50, 90, 95 and 99 of a hundred messages were delivered, from when they were accepted, or were to go. " + reportDoc,
		Example: Example{Params: object{"by": "provider"}, Answer: object{"since": "2026-02-22T08:30:00Z", "until": ExampleTime, "by": "provider",
			"lines": []any{object{"key": "Gmail", "delivered": 981, "p50": 0.4, "p90": 1.2, "p95": 2.5, "p99": 61.5}}}},
	}, s.reportTiming)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/reports/failures", ID: "report-failures", Tag: "Reports", Right: Read, OfAccount: true,
		Summary: "Why mail failed most", Doc: "The reasons that came up most, with what they mean and the last delivery that failed so. " + reportDoc,
		Example: Example{Params: object{"kinds": "bounced,expired"}, Answer: object{"since": "2026-02-22T08:30:00Z", "until": ExampleTime,
			"lines": []any{object{"kind": "bounced", "category": "hard/no-such-mailbox", "provider": "Gmail", "count": 12, "share": 0.6, "before": 3,
				"example": object{"delivery": ExampleMessage + "-1", "at": ExampleTime, "recipient": "ann@example.net", "host": "mx.example.net",
					"reply":     object{"code": 550, "enhanced": "5.1.1", "text": "No such user"},
					"diagnosis": object{"category": "hard/no-such-mailbox", "text": "The mailbox does not exist.", "advice": "Take the address off your list."}}}}}},
	}, s.reportFailures)
}

// ReportQuery is what every report takes.
type ReportQuery struct {
	Since      time.Time `query:"since" doc:"At or after; none: seven days before until"`
	Until      time.Time `query:"until" doc:"Before; none: now"`
	Stream     string    `query:"stream" enum:"transactional,broadcast" doc:"Only of this stream"`
	Category   string    `query:"category" maxLength:"200" doc:"Only of this diagnosis: hard/no-such-mailbox, hard or no-such-mailbox. Here and below: several, separated by commas; - for what is not known"`
	Provider   string    `query:"provider" maxLength:"1000" doc:"Only to these receiving services, such as Gmail"`
	Credential string    `query:"credential" maxLength:"400" doc:"Only with this one: id, user name or name"`
	Domain     string    `query:"domain" maxLength:"1000" doc:"Only in the name of these sending domains"`
	IP         string    `query:"ip" maxLength:"1000" doc:"Only from these addresses of ours"`
	Tag        string    `query:"tag" maxLength:"200" doc:"Only with this tag"`
	Top        int       `query:"top" default:"10" minimum:"1" maximum:"1000" doc:"Most values to give"`
	Format     string    `query:"format" enum:"json,csv" doc:"Form of the answer; none: as Accept says"`
}

// ReportOver is what tells lines apart.
type ReportOver struct {
	By       string `query:"by" enum:"account,stream,category,provider,credential,domain,ip,tag" doc:"A line for each of these"`
	Interval string `query:"interval" enum:"hour,day,week,month" doc:"A line for each of these; weeks begin on Monday"`
	Zone     string `query:"zone" maxLength:"64" doc:"Time zone that days begin in, such as Europe/Berlin; none: UTC"`
}

// ReportFrame is what each report says of itself.
type ReportFrame struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	By       string    `json:"by,omitempty"`
	Interval string    `json:"interval,omitempty"`
	More     bool      `json:"more,omitempty" doc:"There are more values than top"`
}

// dimensionOf is a dimension by the name that it has here.
func dimensionOf(by string) relay.Dimension {
	if by == "ip" {
		return relay.BySource
	}
	return relay.Dimension(by)
}

// reportQuery turns the request into a question.
func (s *Server) reportQuery(ctx context.Context, in *ReportQuery, over ReportOver) (report.Query, error) {
	q := report.Query{Account: CallerOf(ctx).Account, Since: in.Since, Until: in.Until, Interval: over.Interval, By: dimensionOf(over.By), Top: in.Top, Zone: time.UTC, Where: map[relay.Dimension][]string{}}
	if q.Until.IsZero() {
		q.Until = time.Now()
	}
	if q.Since.IsZero() {
		q.Since = q.Until.AddDate(0, 0, -7)
	}
	if over.Zone != "" && over.Zone != "UTC" {
		zone, err := time.LoadLocation(over.Zone)
		if err != nil || over.Zone == "Local" {
			return q, invalid("query.zone", fmt.Sprintf("There is no time zone %q.", over.Zone), "Name it as the IANA does, such as Europe/Berlin.")
		}
		q.Zone = zone
	}
	for d, v := range map[relay.Dimension]string{relay.ByStream: in.Stream, relay.ByCategory: in.Category, relay.ByProvider: in.Provider, relay.ByDomain: strings.ToLower(in.Domain), relay.BySource: in.IP, relay.ByTag: in.Tag} {
		if v == "" {
			continue
		}
		list := []string{v}
		if d != relay.ByTag { // it may have a comma
			list = strings.Split(v, ",")
		}
		for i := range list {
			if list[i] = strings.TrimSpace(list[i]); list[i] == "-" {
				list[i] = ""
			}
		}
		q.Where[d] = list
	}
	if in.Credential == "-" {
		q.Where[relay.ByCredential] = []string{""}
	} else if in.Credential != "" {
		c, err := s.config.Credentials.Find(ctx, q.Account, in.Credential)
		if err != nil {
			return q, at("query.credential", err)
		}
		q.Where[relay.ByCredential] = []string{c.ID.String()}
	}
	return q, nil
}

// reportOver gives the question with names for the keys of its lines.
func (s *Server) reportOver(ctx context.Context, in *ReportQuery, over ReportOver) (q report.Query, name func(key string) string, err error) {
	if q, err = s.reportQuery(ctx, in, over); err != nil {
		return q, nil, err
	}
	name, err = s.names(ctx, over.By)
	return q, name, err
}

func frameOf(q report.Query, over ReportOver) ReportFrame {
	return ReportFrame{Since: q.Since.UTC(), Until: q.Until.UTC(), By: over.By, Interval: over.Interval}
}

// names gives people's names for the ids that are values of a dimension.
func (s *Server) names(ctx context.Context, by string) (func(key string) string, error) {
	names := map[string]string{}
	account := CallerOf(ctx).Account
	switch by {
	case "credential":
		all, err := s.config.Credentials.List(ctx, account)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			names[c.ID.String()] = c.Name
		}
	case "account":
		const page = 1000
		for after := (relay.ID{}); ; {
			all, err := s.config.Accounts.List(ctx, CallerOf(ctx).Caller, after, page)
			if err != nil {
				return nil, err
			}
			for _, a := range all {
				names[a.ID.String()], after = a.Name, a.ID
			}
			if len(all) < page {
				break
			}
		}
	}
	return func(key string) string { return names[key] }, nil
}

// Rates are parts of one.
type Rates struct {
	Delivery    float64 `json:"delivery" doc:"Delivered and not bounced later, of what ended"`
	Bounce      float64 `json:"bounce" doc:"Of what ended"`
	HardBounce  float64 `json:"hard_bounce"`
	SoftBounce  float64 `json:"soft_bounce"`
	BlockBounce float64 `json:"block_bounce"`
	Expiry      float64 `json:"expiry" doc:"Of what ended"`
	Deferral    float64 `json:"deferral" doc:"Of all attempts"`
	Complaint   float64 `json:"complaint" doc:"Of what was delivered, as all that follow"`
	Open        float64 `json:"open"`
	PersonOpen  float64 `json:"person_open"`
	Click       float64 `json:"click"`
	PersonClick float64 `json:"person_click"`
	Unsubscribe float64 `json:"unsubscribe"`
}

// CountLine is one line of a report.
type CountLine struct {
	Start         *time.Time `json:"start,omitempty" doc:"When the interval begins"`
	Key           string     `json:"key,omitempty" doc:"Value of by; not there: not known"`
	Name          string     `json:"name,omitempty" doc:"Of the credential, or the account"`
	Sent          *int64     `json:"sent,omitempty" doc:"Deliveries that were accepted; not there where lines are told apart by the receiver's side"`
	Delivered     int64      `json:"delivered"`
	Deferred      int64      `json:"deferred" doc:"Attempts"`
	Bounced       int64      `json:"bounced"`
	Hard          int64      `json:"hard" doc:"Of bounced"`
	Soft          int64      `json:"soft" doc:"Of bounced"`
	Block         int64      `json:"block" doc:"Of bounced"`
	Late          int64      `json:"late" doc:"Of bounced: after delivery"`
	Expired       int64      `json:"expired"`
	Cancelled     int64      `json:"cancelled" doc:"Suppressed, or by an order"`
	Complained    int64      `json:"complained"`
	Opened        int64      `json:"opened" doc:"Deliveries that were opened, by whomever"`
	PersonOpened  int64      `json:"person_opened" doc:"Of opened: by a person, as far as can be told"`
	Opens         int64      `json:"opens" doc:"Each counted"`
	MachineOpens  int64      `json:"machine_opens" doc:"Of opens"`
	Clicked       int64      `json:"clicked"`
	PersonClicked int64      `json:"person_clicked"`
	Clicks        int64      `json:"clicks"`
	MachineClicks int64      `json:"machine_clicks"`
	Unsubscribed  int64      `json:"unsubscribed"`
	Rates         Rates      `json:"rates"`
}

// Counts is a report.
type Counts struct {
	ReportFrame
	Lines  []CountLine `json:"lines" nullable:"false"`
	Total  CountLine   `json:"total"`
	Before CountLine   `json:"before" doc:"The total of a time as long just before"`
}

func newCountLine(l *report.Line, name func(string) string, sent bool) CountLine {
	out := CountLine{Start: moment(l.Start), Key: l.Key, Name: name(l.Key), Delivered: l.Delivered, Deferred: l.Deferred, Bounced: l.Bounced, Hard: l.Hard, Soft: l.Soft, Block: l.Block,
		Late: l.Late, Expired: l.Expired, Cancelled: l.Cancelled, Complained: l.Complained, Opened: l.Opened, PersonOpened: l.Read, Opens: l.Opens, MachineOpens: l.MachineOpens,
		Clicked: l.Clicked, PersonClicked: l.Followed, Clicks: l.Clicks, MachineClicks: l.MachineClicks, Unsubscribed: l.Unsubscribed, Rates: Rates(l.Rates)}
	if sent {
		out.Sent = &l.Sent
	}
	return out
}

func (s *Server) reportCounts(ctx context.Context, in *struct {
	ReportQuery
	ReportOver
}) (*body[Counts], error) {
	q, name, err := s.reportOver(ctx, &in.ReportQuery, in.ReportOver)
	if err != nil {
		return nil, err
	}
	r, err := s.config.Reports.Counts(ctx, q)
	if err != nil {
		return nil, err
	}
	// Of what was accepted nobody knows the receiver's side.
	sent := in.Provider == "" && in.IP == "" && in.Category == ""
	out := Counts{ReportFrame: frameOf(q, in.ReportOver), Lines: []CountLine{}, Total: newCountLine(&r.Total, name, sent), Before: newCountLine(&r.Before, name, sent)}
	out.More = r.More
	for i := range r.Lines {
		out.Lines = append(out.Lines, newCountLine(&r.Lines[i], name, sent && in.By != "provider" && in.By != "ip" && in.By != "category"))
	}
	return answer(out, nil)
}

// TimingLine is how long delivery took.
type TimingLine struct {
	Start     *time.Time `json:"start,omitempty"`
	Key       string     `json:"key,omitempty"`
	Name      string     `json:"name,omitempty"`
	Delivered int64      `json:"delivered"`
	P50       float64    `json:"p50" doc:"Seconds within which half was delivered"`
	P90       float64    `json:"p90"`
	P95       float64    `json:"p95"`
	P99       float64    `json:"p99"`
}

// Timing is a report.
type Timing struct {
	ReportFrame
	Lines []TimingLine `json:"lines" nullable:"false"`
}

func (s *Server) reportTiming(ctx context.Context, in *struct {
	ReportQuery
	ReportOver
}) (*body[Timing], error) {
	q, name, err := s.reportOver(ctx, &in.ReportQuery, in.ReportOver)
	if err != nil {
		return nil, err
	}
	lines, more, err := s.config.Reports.Timing(ctx, q)
	if err != nil {
		return nil, err
	}
	out := Timing{ReportFrame: frameOf(q, in.ReportOver), Lines: []TimingLine{}}
	out.More = more
	for _, l := range lines {
		out.Lines = append(out.Lines, TimingLine{Start: moment(l.Start), Key: l.Key, Name: name(l.Key), Delivered: l.Delivered,
			P50: l.P50.Seconds(), P90: l.P90.Seconds(), P95: l.P95.Seconds(), P99: l.P99.Seconds()})
	}
	return answer(out, nil)
}

// FailureLine is a reason why mail failed.
type FailureLine struct {
	Kind     relay.Kind      `json:"kind" enum:"deferred,bounced,expired,cancelled,complained"`
	Category string          `json:"category,omitempty"`
	Provider string          `json:"provider,omitempty"`
	Count    int64           `json:"count"`
	Share    float64         `json:"share" doc:"Of all of this kind"`
	Before   int64           `json:"before" doc:"How often in a time as long just before"`
	Example  *FailureExample `json:"example,omitempty" doc:"The last such delivery that the log has"`
}

// FailureExample is one delivery that failed.
type FailureExample struct {
	Delivery  string          `json:"delivery"`
	At        time.Time       `json:"at"`
	Recipient string          `json:"recipient"`
	Host      string          `json:"host,omitempty"`
	Reply     relay.Reply     `json:"reply"`
	Diagnosis relay.Diagnosis `json:"diagnosis"`
}

// Failures is a report.
type Failures struct {
	ReportFrame
	Lines []FailureLine `json:"lines" nullable:"false"`
}

func (s *Server) reportFailures(ctx context.Context, in *struct {
	ReportQuery
	Kinds string `query:"kinds" maxLength:"100" doc:"Of deferred, bounced, expired, cancelled and complained, separated by commas; none: bounced and expired"`
}) (*body[Failures], error) {
	q, err := s.reportQuery(ctx, &in.ReportQuery, ReportOver{})
	if err != nil {
		return nil, err
	}
	var kinds []relay.Kind
	for word := range strings.SplitSeq(in.Kinds, ",") {
		var k relay.Kind
		if word == "" {
			continue
		}
		if err := k.UnmarshalText([]byte(word)); err != nil || !strings.Contains(" deferred bounced expired cancelled complained ", " "+word+" ") {
			return nil, invalid("query.kinds", fmt.Sprintf("%q is no way to fail.", word), "Use deferred, bounced, expired, cancelled or complained.")
		}
		kinds = append(kinds, k)
	}
	found, err := s.config.Reports.Failures(ctx, q, kinds...)
	if err != nil {
		return nil, err
	}
	out := Failures{ReportFrame: frameOf(q, ReportOver{}), Lines: []FailureLine{}}
	for _, f := range found {
		l := FailureLine{Kind: f.Kind, Category: f.Category, Provider: f.Provider, Count: f.N, Share: f.Share, Before: f.Before}
		if f.Example.N > 0 {
			l.Example = &FailureExample{Delivery: f.Example.String(), At: f.At, Recipient: f.Recipient, Host: f.Host, Reply: f.Reply, Diagnosis: f.Diagnosis}
		}
		out.Lines = append(out.Lines, l)
	}
	return answer(out, nil)
}

// tabled is an answer that can be a table.
type tabled interface{ table() [][]string }

// tables writes answers as CSV (RFC 4180).
func tables() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error {
			t, is := v.(tabled)
			if !is {
				return huma.DefaultJSONFormat.Marshal(w, v)
			}
			return csv.NewWriter(w).WriteAll(harmless(t.table()))
		},
		Unmarshal: func([]byte, any) error { return huma.ErrUnknownContentType },
	}
}

// harmless keeps a spreadsheet from taking what others wrote for a formula.
func harmless(rows [][]string) [][]string {
	for _, row := range rows {
		for i, s := range row {
			if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
				row[i] = "'" + s
			}
		}
	}
	return rows
}

func momentText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func fraction(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (c Counts) table() [][]string {
	rows := [][]string{strings.Split("start,key,name,sent,delivered,deferred,bounced,hard,soft,block,late,expired,cancelled,complained,opened,person_opened,opens,machine_opens,"+
		"clicked,person_clicked,clicks,machine_clicks,unsubscribed,delivery_rate,bounce_rate,hard_bounce_rate,soft_bounce_rate,block_bounce_rate,expiry_rate,deferral_rate,complaint_rate,"+
		"open_rate,person_open_rate,click_rate,person_click_rate,unsubscribe_rate", ",")}
	for _, l := range c.Lines {
		row := []string{momentText(l.Start), l.Key, l.Name, ""}
		if l.Sent != nil {
			row[3] = number(*l.Sent)
		}
		for _, n := range []int64{l.Delivered, l.Deferred, l.Bounced, l.Hard, l.Soft, l.Block, l.Late, l.Expired, l.Cancelled, l.Complained, l.Opened, l.PersonOpened, l.Opens, l.MachineOpens,
			l.Clicked, l.PersonClicked, l.Clicks, l.MachineClicks, l.Unsubscribed} {
			row = append(row, number(n))
		}
		r := &l.Rates
		for _, f := range []float64{r.Delivery, r.Bounce, r.HardBounce, r.SoftBounce, r.BlockBounce, r.Expiry, r.Deferral, r.Complaint, r.Open, r.PersonOpen, r.Click, r.PersonClick, r.Unsubscribe} {
			row = append(row, fraction(f))
		}
		rows = append(rows, row)
	}
	return rows
}

func (t Timing) table() [][]string {
	rows := [][]string{{"start", "key", "name", "delivered", "p50", "p90", "p95", "p99"}}
	for _, l := range t.Lines {
		rows = append(rows, []string{momentText(l.Start), l.Key, l.Name, number(l.Delivered), fraction(l.P50), fraction(l.P90), fraction(l.P95), fraction(l.P99)})
	}
	return rows
}

func (f Failures) table() [][]string {
	rows := [][]string{{"kind", "category", "provider", "count", "share", "before", "text", "advice", "delivery", "at", "recipient", "host", "reply"}}
	for _, l := range f.Lines {
		row := []string{l.Kind.String(), l.Category, l.Provider, number(l.Count), fraction(l.Share), number(l.Before), "", "", "", "", "", "", ""}
		if e := l.Example; e != nil {
			copy(row[6:], []string{e.Diagnosis.Text, e.Diagnosis.Advice, e.Delivery, e.At.Format(time.RFC3339), e.Recipient, e.Host, e.Reply.String()})
		}
		rows = append(rows, row)
	}
	return rows
}
