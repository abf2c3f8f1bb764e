package api

// The examples of the document speak of one small shop. Ids are those that the
// contract test gives to what it puts into its store.
const (
	exampleAccount    = "06dx0000000000000000000010"
	exampleCredential = "06dx0000000000000000000020"
	exampleMessage    = "06dx0000000000000000000030"
	exampleEventID    = "06dx0000000000000000000040"
	exampleTime       = "2026-03-01T08:30:00Z"
)

type object = map[string]any

func exampleDelivery() object {
	return object{"id": exampleMessage + "-1", "message": exampleMessage, "received": exampleTime, "sender": "orders@shop.example", "recipient": "ann@example.net",
		"subject": "Your order 1001", "message_id_header": "<1001@shop.example>", "size": 1234, "stream": "transactional", "state": "deferred", "attempts": 1,
		"updated": exampleTime, "due": "2026-03-01T08:31:00Z", "expires": "2026-03-06T08:30:00Z", "host": "mx.example.net",
		"reply":     object{"code": 451, "enhanced": "4.7.1", "text": "Try again later"},
		"diagnosis": object{"category": "soft/greylisted", "text": "The receiver wants the message to be sent once more, later.", "advice": "Wait."}}
}

func exampleEvent() object {
	return object{"id": exampleEventID, "at": exampleTime, "delivery": exampleMessage + "-1", "kind": "accepted", "reply": object{}, "diagnosis": object{},
		"sender": "orders@shop.example", "recipient": "ann@example.net", "subject": "Your order 1001", "message_id_header": "<1001@shop.example>"}
}

func exampleSummary() object {
	return object{"id": exampleMessage, "account": exampleAccount, "received": exampleTime, "sender": "orders@shop.example", "from": "orders@shop.example",
		"subject": "Your order 1001", "message_id_header": "<1001@shop.example>", "size": 1234, "stream": "transactional", "tags": []string{"order"},
		"states": object{"deferred": 1}}
}

func exampleStory() object {
	return object{"id": exampleMessage, "account": exampleAccount, "credential": exampleCredential, "credential_name": "webshop", "received": exampleTime,
		"sender": "orders@shop.example", "from": "orders@shop.example", "subject": "Your order 1001", "message_id_header": "<1001@shop.example>", "size": 1234,
		"client": "192.0.2.7:40000", "helo": "web-1", "protocol": "HTTP", "kept": true, "stream": "transactional", "tags": []string{"order"},
		"metadata": object{"order": "1001"}, "deliveries": []any{exampleDelivery()}, "events": []any{exampleEvent()}}
}

func exampleCredentialValue() object {
	return object{"id": exampleCredential, "account": exampleAccount, "kind": "smtp", "name": "webshop", "user": "webshop-x7k2p9", "stream": "transactional", "created": exampleTime}
}

func exampleAddedCredential() object {
	o := exampleCredentialValue()
	o["secret"] = "r4nd0mr4nd0mr4nd0mr4nd0m"
	return o
}
