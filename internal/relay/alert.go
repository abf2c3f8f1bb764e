package relay

// Recent counts outcomes of a span.
type Recent struct {
	Account  ID
	Kind     Kind
	Provider string // empty: not known
	Category string
	N        int64
}
