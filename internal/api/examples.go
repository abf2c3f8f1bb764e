package api

// Names that the examples of the document have in common: they speak of one small
// shop.
const (
	ExampleUser       = "06dx0000000000000000000018"
	ExampleAccount    = "06dx0000000000000000000010"
	ExampleCredential = "06dx0000000000000000000020"
	ExampleMessage    = "06dx0000000000000000000030"
	ExampleScheduled  = "06dx0000000000000000000034"
	ExampleEventID    = "06dx0000000000000000000040"
	ExampleWebhook    = "06dx0000000000000000000060"
	ExampleTest       = "06dx0000000000000000000038"
	ExampleAlert      = "06dx0000000000000000000070"
	ExampleChannel    = "06dx0000000000000000000074"
	ExampleTime       = "2026-03-01T08:30:00Z"
)

type object = map[string]any

func exampleDelivery() object {
	return object{"id": ExampleMessage + "-1", "message": ExampleMessage, "received": ExampleTime, "sender": "orders@shop.example", "recipient": "ann@example.net",
		"subject": "Your order 1001", "message_id_header": "<1001@shop.example>", "size": 1234, "stream": "transactional", "state": "deferred", "attempts": 1,
		"updated": ExampleTime, "due": "2026-03-01T08:31:00Z", "expires": "2026-03-06T08:30:00Z", "host": "mx.example.net",
		"reply":     object{"code": 451, "enhanced": "4.7.1", "text": "Try again later"},
		"diagnosis": object{"category": "soft/greylisted", "text": "The receiver wants the message to be sent once more, later.", "advice": "Wait."}}
}

// exampleComplaint is one that was delivered, and complained about.
func exampleComplaint() object {
	o := exampleDelivery()
	delete(o, "due")
	o["state"], o["happened"], o["diagnosis"] = "delivered", []string{"opened", "complained"}, object{}
	o["reply"] = object{"code": 250, "enhanced": "2.0.0", "text": "Ok"}
	return o
}

func exampleEvent() object {
	return object{"id": ExampleEventID, "at": ExampleTime, "delivery": ExampleMessage + "-1", "kind": "accepted", "reply": object{}, "diagnosis": object{},
		"sender": "orders@shop.example", "recipient": "ann@example.net", "subject": "Your order 1001", "message_id_header": "<1001@shop.example>"}
}

func exampleSummary() object {
	return object{"id": ExampleMessage, "account": ExampleAccount, "received": ExampleTime, "sender": "orders@shop.example", "from": "orders@shop.example",
		"subject": "Your order 1001", "message_id_header": "<1001@shop.example>", "size": 1234, "stream": "transactional", "tags": []string{"order"},
		"states": object{"delivered": 1}, "happened": object{"opened": 1}}
}

func exampleStory() object {
	return object{"id": ExampleMessage, "account": ExampleAccount, "credential": ExampleCredential, "credential_name": "webshop", "received": ExampleTime,
		"sender": "orders@shop.example", "from": "orders@shop.example", "subject": "Your order 1001", "message_id_header": "<1001@shop.example>", "size": 1234,
		"client": "192.0.2.7", "protocol": "HTTP", "kept": true, "stream": "transactional", "tags": []string{"order"},
		"metadata": object{"order": "1001"}, "deliveries": []any{exampleDelivery()}, "events": []any{exampleEvent()}}
}

func exampleCredentialValue() object {
	return object{"id": ExampleCredential, "account": ExampleAccount, "kind": "smtp", "name": "webshop", "user": "webshop-x7k2p9", "stream": "transactional", "status": "active", "created": ExampleTime, "version": 1}
}

func exampleAddedCredential() object {
	o := exampleCredentialValue()
	o["secret"] = "r4nd0mr4nd0mr4nd0mr4nd0m"
	return o
}
