package api_test

import (
	"slices"
	"testing"

	"postrider/internal/api"
)

// What recipients did is sought like a state, and each sees their own.
func TestLogByDeeds(t *testing.T) {
	w := newWorld(t)
	ask := func(key, path string, into any) {
		t.Helper()
		a := w.ask(key, "GET", path, nil)
		if a.status != 200 {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		w.decode(a, into)
	}
	var found api.List[api.Delivery]
	for query, n := range map[string]int{"unsubscribed": 1, "unsubscribed,cancelled": 1, "clicked,unsubscribed": 1, "clicked": 0, "queued,unsubscribed": 3} {
		ask(keyOfShop, "/v1/deliveries?state="+query, &found)
		if len(found.Data) != n {
			t.Errorf("%s: %d found, want %d", query, len(found.Data), n)
		}
		ask(keyOfOther, "/v1/deliveries?state="+query, &found)
		if len(found.Data) != 0 {
			t.Errorf("%s: another account finds %v", query, found.Data)
		}
	}
	ask(keyOfShop, "/v1/deliveries?state=unsubscribed", &found)
	if len(found.Data) != 1 || found.Data[0].Message != api.ExampleTest || !slices.Equal(found.Data[0].Happened, []string{"unsubscribed"}) {
		t.Errorf("found %+v", found.Data)
	}
	var messages api.List[api.Summary]
	ask(keyOfShop, "/v1/messages?state=unsubscribed", &messages)
	if len(messages.Data) != 1 || messages.Data[0].Happened["unsubscribed"] != 1 || messages.Data[0].States["cancelled"] != 1 {
		t.Errorf("messages %+v", messages.Data)
	}
	var story api.Story
	ask(keyOfShop, "/v1/messages/"+api.ExampleTest, &story)
	if len(story.Deliveries) != 1 || !slices.Equal(story.Deliveries[0].Happened, []string{"unsubscribed"}) {
		t.Errorf("story %+v", story.Deliveries)
	}
}
