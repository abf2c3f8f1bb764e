package schedule

// Pace is how many connections a site takes: it starts low, grows with each
// success and shrinks when the site pushes back. The zero Pace is not usable.
type Pace struct {
	limit float64
	max   float64
}

// startPace is how many connections a site is met with that nothing is known of.
const startPace = 4

// NewPace makes a pace that goes up to max connections.
func NewPace(max int) Pace {
	return Pace{limit: min(startPace, float64(max)), max: float64(max)}
}

// Limit is how many connections may be open now, at least 1.
func (p *Pace) Limit() int { return int(p.limit) }

// Max is the most that Limit ever gives.
func (p *Pace) Max() int { return int(p.max) }

// Good records a delivery: one more connection for each round of deliveries
// over the present ones.
func (p *Pace) Good() { p.limit = min(p.max, p.limit+1/p.limit) }

// Bad records that the site pushed back: 421, or no connection.
func (p *Pace) Bad() { p.limit = max(1, p.limit/2) }
