package api

// Page is how a list is asked for piece by piece.
type Page struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"Most entries to answer with"`
	Cursor string `query:"cursor" maxLength:"300" doc:"Where the page before ended: its next"`
}

// List is one page of a list.
type List[T any] struct {
	Data []T    `json:"data" nullable:"false"`
	Next string `json:"next,omitempty" doc:"Cursor of the following page; not there on the last one"`
}

// pageOf cuts a page out of a whole list. Entries are named by key; the cursor is
// the name of the last one of the page before, whether or not it is still there.
func pageOf[T, U any](all []T, p Page, key func(T) string, show func(T) U) (*body[List[U]], error) {
	start := 0
	if p.Cursor != "" {
		start = len(all)
		for i := range all {
			if key(all[i]) == p.Cursor {
				start = i + 1
				break
			}
		}
		if start == len(all) && (len(all) == 0 || key(all[len(all)-1]) != p.Cursor) {
			return nil, problem(invalid("query.cursor", "There is no such entry any more.", "Begin at the first page."))
		}
	}
	out := List[U]{Data: []U{}}
	for i := start; i < len(all) && len(out.Data) < p.Limit; i++ {
		out.Data = append(out.Data, show(all[i]))
	}
	if n := start + len(out.Data); n < len(all) {
		out.Next = key(all[n-1])
	}
	return &body[List[U]]{out}, nil
}
