package message

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadParts(t *testing.T) {
	in := text("Subject: x", "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Transfer-Encoding: quoted-printable", "", "caf=C3=A9", "--b",
		"Content-Type: image/x", "Content-Transfer-Encoding: base64", "", "YWJj", "!", "--b", "Content-Type: message/rfc822", "", "Subject: y", "", "0123456789", "--b--")
	var got []Part
	visit := func(p Part) error { got = append(got, p); return nil }
	if err := ReadParts(bytes.NewReader([]byte(in)), 6, visit); err != nil {
		t.Fatal(err)
	}
	want := []Part{
		{Type: "multipart/mixed", Header: []byte(text("Subject: x", "Content-Type: multipart/mixed; boundary=b")), Message: true, Container: true},
		{Type: "text/plain", Header: []byte(text("Content-Transfer-Encoding: quoted-printable")), Body: []byte("café\n")[:5]},
		{Type: "image/x", Header: []byte(text("Content-Type: image/x", "Content-Transfer-Encoding: base64")), Body: []byte("abc")},
		{Type: "message/rfc822", Header: []byte(text("Content-Type: message/rfc822")), Container: true},
		{Type: "text/plain", Header: []byte(text("Subject: y")), Message: true, Body: []byte("012345")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	stop := errors.New("enough")
	if err := ReadParts(bytes.NewReader([]byte(in)), 6, func(Part) error { return stop }); err != stop {
		t.Error(err)
	}
}
