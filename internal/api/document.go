package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// documentRoutes serves the description of the API: as OpenAPI 3.1 and as a page
// for people. They are written when they are first asked for: by then all routes
// are there.
func (s *Server) documentRoutes() {
	o := s.huma.OpenAPI()
	o.Info.Description = "Hand in mail, see what became of it, and manage who may send what."
	if s.config.URL != "" {
		o.Servers = []*huma.Server{{URL: s.config.URL}}
	}
	o.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"key":   {Type: "http", Scheme: "bearer", Description: "An API key."},
		"basic": {Type: "http", Scheme: "basic", Description: "An API key as the password, with any user name."},
	}
	document := sync.OnceValues(func() ([]byte, error) {
		delete(o.Components.Schemas.Map(), "ErrorModel") // the framework's, which finish replaces
		delete(o.Components.Schemas.Map(), "ErrorDetail")
		return json.Marshal(o)
	})
	s.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		b, err := document()
		if err != nil {
			exchangeOf(r.Context()).failure = err
			s.writeProblem(w, r, problem(err).(*Problem))
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(b) // who has gone needs no document
	})
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
