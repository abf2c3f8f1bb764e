package api

import (
	"time"

	"postrider/internal/relay"
)

// Delivery is one recipient of one message.
type Delivery struct {
	ID        string          `json:"id"`
	Message   string          `json:"message"`
	Received  time.Time       `json:"received"`
	Sender    string          `json:"sender"`
	Recipient string          `json:"recipient"`
	Subject   string          `json:"subject"`
	HeaderID  string          `json:"message_id_header"`
	Size      int64           `json:"size"`
	Stream    string          `json:"stream"`
	State     string          `json:"state"`
	Happened  []string        `json:"happened,omitempty" doc:"What the recipient did: opened or clicked (a person, as far as can be told), unsubscribed, complained"`
	Attempts  int             `json:"attempts"`
	Updated   time.Time       `json:"updated"`
	Due       *time.Time      `json:"due,omitempty" doc:"Next attempt, while it waits"`
	Expires   time.Time       `json:"expires"`
	Host      string          `json:"host,omitempty"`
	Reply     relay.Reply     `json:"reply"`
	Diagnosis relay.Diagnosis `json:"diagnosis"`
	Provider  string          `json:"provider,omitempty" doc:"Public name of the receiving service"`
	Source    string          `json:"source,omitempty" doc:"Our address at the last attempt that reached a server"`
}

func newDelivery(d *relay.Delivery, m *relay.Message) Delivery {
	out := Delivery{ID: d.ID.String(), Message: d.ID.Message.String(), Received: m.Received, Sender: m.Envelope.Sender,
		Recipient: d.Recipient.Address, Subject: m.Subject, HeaderID: m.HeaderID, Size: m.Size, Stream: d.Stream.String(),
		State: d.State.String(), Attempts: d.Attempts, Updated: d.Updated, Expires: d.Expires, Host: d.Host,
		Reply: d.Reply, Diagnosis: d.Diagnosis, Provider: d.Provider, Source: d.Source}
	for _, k := range d.Deeds {
		out.Happened = append(out.Happened, k.String())
	}
	if d.State == relay.Queued || d.State == relay.Deferred {
		out.Due = &d.Due
	}
	return out
}

// Summary is a message as a list shows it.
type Summary struct {
	ID       string         `json:"id"`
	Account  string         `json:"account"`
	Received time.Time      `json:"received"`
	Sender   string         `json:"sender"`
	From     string         `json:"from"`
	Subject  string         `json:"subject"`
	HeaderID string         `json:"message_id_header"`
	Size     int64          `json:"size"`
	Stream   string         `json:"stream"`
	Tags     []string       `json:"tags,omitempty"`
	States   map[string]int `json:"states" doc:"How many of the deliveries that were found are in which state"`
	Happened map[string]int `json:"happened,omitempty" doc:"Of how many of them the recipient did what"`
}

func newSummary(m *relay.Message) Summary {
	return Summary{ID: m.ID.String(), Account: m.Account.String(), Received: m.Received, Sender: m.Envelope.Sender, From: m.From, Subject: m.Subject,
		HeaderID: m.HeaderID, Size: m.Size, Stream: m.Stream.String(), Tags: m.Tags, States: map[string]int{}}
}

// add counts a delivery that was found.
func (s *Summary) add(d *relay.Delivery) {
	s.States[d.State.String()]++
	for _, k := range d.Deeds {
		if s.Happened == nil {
			s.Happened = map[string]int{}
		}
		s.Happened[k.String()]++
	}
}

// Event is one fact about a delivery.
type Event struct {
	ID         string            `json:"id"`
	At         time.Time         `json:"at"`
	Delivery   string            `json:"delivery"`
	Kind       string            `json:"kind"`
	Reply      relay.Reply       `json:"reply"`
	Diagnosis  relay.Diagnosis   `json:"diagnosis"`
	Attempt    *relay.Attempt    `json:"attempt,omitempty"`
	Provider   string            `json:"provider,omitempty" doc:"Public name of the receiving service"`
	Engagement *relay.Engagement `json:"engagement,omitempty" doc:"Of opened, clicked, unsubscribed and resubscribed: what the recipient did"`
	Sender     string            `json:"sender,omitempty"`
	Recipient  string            `json:"recipient,omitempty"`
	Subject    string            `json:"subject,omitempty"`
	HeaderID   string            `json:"message_id_header,omitempty"`
}

func newEvent(e *relay.Event) Event {
	return Event{ID: e.ID.String(), At: e.At, Delivery: e.Delivery.String(), Kind: e.Kind.String(), Reply: e.Reply,
		Diagnosis: e.Diagnosis, Attempt: e.Attempt, Provider: e.Provider, Engagement: e.Engagement, Sender: e.Sender, Recipient: e.Recipient, Subject: e.Subject, HeaderID: e.HeaderID}
}

// Story is everything that is known of a message.
type Story struct {
	ID         string            `json:"id"`
	Account    string            `json:"account"`
	Credential string            `json:"credential,omitempty"`
	App        string            `json:"credential_name,omitempty" doc:"Name of the credential: the app or device that sent it"`
	Received   time.Time         `json:"received"`
	Sender     string            `json:"sender"`
	From       string            `json:"from"`
	Subject    string            `json:"subject"`
	HeaderID   string            `json:"message_id_header"`
	Size       int64             `json:"size"`
	Client     string            `json:"client,omitempty"`
	Helo       string            `json:"helo,omitempty"`
	Protocol   string            `json:"protocol"`
	Listener   string            `json:"listener,omitempty"`
	TLS        string            `json:"tls,omitempty"`
	User       string            `json:"user,omitempty"`
	About      string            `json:"about,omitempty" doc:"Of a delivery status notification: the message that it reports on"`
	Kept       bool              `json:"kept" doc:"The content is still stored"`
	Stream     string            `json:"stream"`
	Script     string            `json:"script,omitempty" doc:"What a header told of the program that sent it"`
	Tags       []string          `json:"tags,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Deliveries []Delivery        `json:"deliveries" nullable:"false"`
	Events     []Event           `json:"events" nullable:"false"`
	Next       string            `json:"next,omitempty" doc:"There are more deliveries: cursor of those that follow, with their events"`
	Cut        bool              `json:"events_cut,omitempty" doc:"The delivery has more events than these, which are its first"`
}

func newStory(s *relay.Story) *Story {
	m := s.Message
	out := &Story{ID: m.ID.String(), Account: m.Account.String(), Received: m.Received, Sender: m.Envelope.Sender,
		From: m.From, Subject: m.Subject, HeaderID: m.HeaderID, Size: m.Size, Helo: m.Source.Helo, Protocol: m.Source.Protocol,
		Listener: m.Source.Listener, TLS: m.Source.TLS, User: m.Source.User, Kept: s.Content,
		Stream: m.Stream.String(), Script: m.Script, Tags: m.Tags, Metadata: m.Metadata, Deliveries: []Delivery{}, Events: []Event{}}
	if !m.Credential.IsZero() {
		out.Credential = m.Credential.String()
	}
	if !m.About.IsZero() {
		out.About = m.About.String()
	}
	if m.Source.Client.IsValid() {
		out.Client = m.Source.Client.String()
		if m.Source.Client.Port() == 0 { // over HTTP it is not known
			out.Client = m.Source.Client.Addr().String()
		}
	}
	if out.Cut = s.Cut; s.Next > 0 {
		out.Next = relay.DeliveryID{Message: m.ID, N: s.Next}.String()
	}
	for _, d := range s.Deliveries {
		out.Deliveries = append(out.Deliveries, newDelivery(d, m))
	}
	for _, e := range s.Events {
		out.Events = append(out.Events, newEvent(e))
	}
	return out
}
