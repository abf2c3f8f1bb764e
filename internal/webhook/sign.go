package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// prefix begins each secret as people see it (Standard Webhooks, "Signature
// scheme").
const prefix = "whsec_"

// newSecret makes a secret of 32 random bytes.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails: it ends the program where there is no randomness
	return prefix + base64.StdEncoding.EncodeToString(b)
}

var errSecret = errors.New("not a secret of a webhook")

// sign gives the value of the header webhook-signature: one signature for each
// secret, so that a receiver which knows any of them is content.
func sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	var all []string
	for _, s := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, prefix))
		if err != nil || !strings.HasPrefix(s, prefix) {
			return "", errSecret // and not what it is
		}
		h := hmac.New(sha256.New, key)
		h.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(all, " "), nil
}
