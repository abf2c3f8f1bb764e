package api_test

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postrider/internal/api"
)

// No key sees or changes what belongs to another account, at any route of the
// document; and none does what it has no scope for.
func TestIsolation(t *testing.T) {
	w := newWorld(t)
	for _, op := range w.document.operations() {
		t.Run(op.OperationID, func(t *testing.T) {
			defer w.in(t)()
			if len(op.Security) == 0 {
				if op.OperationID != "" && !strings.HasPrefix(op.path, "/verify") {
					t.Errorf("%s %s is open to anybody", op.method, op.path)
				}
				return
			}
			body := any(nil)
			if op.RequestBody != nil {
				body = op.RequestBody.Content["application/json"].Example
			}
			path, header := op.address(nil)
			if a := w.ask("", op.method, path, body, header...); a.status != http.StatusUnauthorized {
				t.Errorf("without a key: %d %s", a.status, a.body)
			}
			if op.Right == api.Anyone.String() {
				return
			}
			weak := sendKey
			if op.Right == api.Send.String() {
				weak = readKey
			}
			if a := w.ask(weak, op.method, path, body, header...); a.status != http.StatusForbidden {
				t.Errorf("without the scope: %d %s", a.status, a.body)
			}
			if op.Right == api.Operators.String() {
				if a := w.ask(keyOfOther, op.method, path, body, header...); a.status != http.StatusForbidden {
					t.Errorf("as no operator: %d %s", a.status, a.body)
				}
				return
			}
			w.foreign(op, body)
		})
	}
	// What was tried has changed nothing.
	for _, path := range []string{"/v1/messages/" + api.ExampleMessage, "/v1/credentials"} {
		if a := w.ask(keyOfShop, "GET", path, nil); a.status != 200 || bytes.Contains(a.body, []byte("revoked")) || bytes.Contains(a.body, []byte("cancelled")) || bytes.Contains(a.body, []byte(`"held"`)) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// foreign asks with the key of one account for the things of another.
func (w *world) foreign(op *operation, body any) {
	w.Helper()
	if op.takesAccount() {
		for _, account := range []string{api.ExampleAccount, "shop", "default"} {
			path, header := op.address(url.Values{"account": {account}})
			if a := w.ask(keyOfOther, op.method, path, body, header...); a.status != http.StatusNotFound || bytes.Contains(a.body, []byte(api.ExampleAccount)) && account != api.ExampleAccount {
				w.Errorf("for account %s: %d %s", account, a.status, a.body)
			}
		}
	}
	path, header := op.address(nil)
	if strings.Contains(op.path, "{") {
		if a := w.ask(keyOfOther, op.method, path, body, header...); a.status != http.StatusNotFound {
			w.Errorf("%s %s: %d %s; want 404", op.method, path, a.status, a.body)
		}
		return
	}
	if op.method != http.MethodGet {
		return // it makes something of its own
	}
	a := w.ask(keyOfOther, op.method, path, nil, header...)
	if a.status == http.StatusNotFound {
		return // its example asks for something of the other account
	}
	if a.status != http.StatusOK {
		w.Errorf("%s %s: %d %s", op.method, path, a.status, a.body)
	}
	for _, theirs := range []string{api.ExampleAccount, api.ExampleCredential, api.ExampleMessage, api.ExampleScheduled, api.ExampleUser, "webshop", "shop.example", "ann@"} {
		if bytes.Contains(a.body, []byte(theirs)) {
			w.Errorf("%s tells of %s: %s", path, theirs, a.body)
		}
	}
}
