// Package internal_test holds the whole tree to its rules: which package may
// import which, and what no package may do.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// levels names every package below internal and cmd, from the ground up. A
// package imports packages of its own level or lower, never higher. A folder
// inside another (store/sqlite) has the level of the outer one unless it stands
// here itself.
var levels = [][]string{
	0: {"internal/relay", "internal/config"},
	1: {"internal/smtp", "internal/smtpclient", "internal/dns", "internal/message", "internal/mailauth",
		"internal/seal", "internal/tlspolicy", "internal/compose", "internal/dsn", "internal/classify", "internal/bounce", "internal/rewrite", "internal/milter", "internal/ratelimit", "internal/wording", "internal/postings", "internal/httpd"},
	2: {"internal/store"},
	3: {"internal/submit", "internal/policy", "internal/limit", "internal/account", "internal/domain", "internal/doctor", "internal/queue", "internal/schedule",
		"internal/deliver", "internal/signing", "internal/link", "internal/feedback", "internal/suppression", "internal/tail", "internal/upkeep", "internal/trace", "internal/webhook", "internal/alert", "internal/report",
		"internal/reputation", "internal/template", "internal/tlsreport", "internal/acme"},
	4: {"internal/smtpd", "internal/api", "internal/metrics", "internal/compat", "internal/web", "internal/track", "internal/unsubscribe", "internal/sink"},
	5: {"internal/daemon", "internal/lab", "internal/cli", "cmd/postrider", "cmd/crash", "cmd/bench", "cmd/bench-backlog", "cmd/bench-log"},
}

// module is the import path that the packages of this repository begin with.
const module = "postrider"

// library is the level whose packages could be libraries of their own: they
// know no tenants, no store and no settings, so nothing of level 0 either.
const library = 1

// tree is the source of one package: its folder from the root of the
// repository, with slashes, and its files by name.
type tree struct {
	folder string
	files  map[string]*ast.File
}

func TestLayers(t *testing.T) {
	set, packages := parse(t)
	for _, p := range packages {
		level, known := levelOf(p.folder)
		if !known {
			t.Errorf("%s stands on no level: give it a place in levels", p.folder)
			continue
		}
		for name, file := range p.files {
			if isTest(name) {
				continue
			}
			for _, spec := range file.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if problem := forbidden(p.folder, level, path); problem != "" {
					t.Errorf("%s: %s", set.Position(spec.Pos()), problem)
				}
			}
		}
	}
}

// forbidden says why a package may not import path, or nothing.
func forbidden(folder string, level int, path string) string {
	target, own := strings.CutPrefix(path, module+"/")
	if !own {
		if folder == "internal/relay" && strings.Contains(strings.Split(path, "/")[0], ".") {
			return "internal/relay imports the standard library only, not " + path
		}
		return ""
	}
	if strings.HasPrefix(target, "cmd/") {
		return fmt.Sprintf("%s imports %s, a command", folder, target)
	}
	at, known := levelOf(target)
	switch {
	case !known:
		return fmt.Sprintf("%s imports %s, which stands on no level", folder, target)
	case at > level:
		return fmt.Sprintf("%s (level %d) imports %s (level %d): imports point down only", folder, level, target, at)
	case level == library && at != library:
		return fmt.Sprintf("%s could be a library of its own, and may not import %s", folder, target)
	}
	return ""
}

func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		folder, path string
		forbidden    bool
	}{
		{"internal/relay", "net/netip", false},
		{"internal/relay", "golang.org/x/net/idna", true},
		{"internal/config", "postrider/internal/relay", false},
		{"internal/smtpclient", "postrider/internal/smtp", false},
		{"internal/smtpclient", "postrider/internal/relay", true},
		{"internal/smtpclient", "postrider/internal/store", true},
		{"internal/store", "postrider/internal/store/sqlite", false},
		{"internal/store/sqlite", "postrider/internal/queue", true},
		{"internal/queue", "postrider/internal/store", false},
		{"internal/smtpd", "postrider/internal/daemon", true},
		{"internal/daemon", "postrider/internal/unheard-of", true},
		{"internal/lab", "postrider/cmd/postrider", true},
	} {
		level, _ := levelOf(c.folder)
		if got := forbidden(c.folder, level, c.path); (got != "") != c.forbidden {
			t.Errorf("%s imports %s: got %q, want forbidden %v", c.folder, c.path, got, c.forbidden)
		}
	}
}

func TestPackages(t *testing.T) {
	set, packages := parse(t)
	for _, p := range packages {
		comment, tested := false, false
		for name, file := range p.files {
			tested = tested || isTest(name) && hasTest(file)
			if isTest(name) {
				continue
			}
			comment = comment || file.Doc != nil
			for _, problem := range habits(set, p.folder, file) {
				t.Error(problem)
			}
		}
		if !comment && !onlyTests(p) {
			t.Errorf("%s has no package comment: say its one job", p.folder)
		}
		if !tested {
			t.Errorf("%s has no test", p.folder)
		}
	}
}

// habits finds what no file may do: init functions anywhere, and, below cmd, a
// context from nowhere, unless a comment "drain:" on its line or the one above
// says which work outlives its caller, and why.
func habits(set *token.FileSet, folder string, file *ast.File) (problems []string) {
	excused := map[int]bool{}
	for _, group := range file.Comments {
		if strings.Contains(group.Text(), "drain:") {
			first, last := set.Position(group.Pos()).Line, set.Position(group.End()).Line
			for line := first; line <= last+1; line++ {
				excused[line] = true
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				problems = append(problems, fmt.Sprintf("%s: an init function", set.Position(n.Pos())))
			}
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if !ok || pkg.Name != "context" || n.Sel.Name != "Background" && n.Sel.Name != "TODO" {
				break
			}
			if at := set.Position(n.Pos()); strings.HasPrefix(folder, "internal/") && !excused[at.Line] {
				problems = append(problems, fmt.Sprintf("%s: context.%s below cmd; pass one in, or say why not in a comment: // drain: …", at, n.Sel.Name))
			}
		}
		return true
	})
	return problems
}

func TestHabits(t *testing.T) {
	const source = `package p
func init() {}
func (t T) init() {}
var a = context.Background()
var b = context.TODO()
var c = context.Background() // drain: the last replies
// drain: what was accepted is stored
// whatever the caller does.
var d = context.Background()
`
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string][]string{
		"internal/p": {"p.go:2:1", "p.go:4:9", "p.go:5:9"},
		"cmd/p":      {"p.go:2:1"},
	} {
		got := habits(set, folder, file)
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("in %s: got %q, want %q", folder, got, want)
		}
	}
}

// parse reads every package of the repository but for testdata.
func parse(t *testing.T) (*token.FileSet, []tree) {
	t.Helper()
	set, byFolder := token.NewFileSet(), map[string]tree{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if err != nil {
			return err
		}
		if entry.IsDir() && path != ".." && (name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".")) {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		folder = filepath.ToSlash(folder)
		if folder == "internal" { // this package
			return nil
		}
		if byFolder[folder].files == nil {
			byFolder[folder] = tree{folder, map[string]*ast.File{}}
		}
		byFolder[folder].files[name] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(byFolder) == 0 {
		t.Fatal("no package found")
	}
	var packages []tree
	for _, p := range byFolder {
		packages = append(packages, p)
	}
	slices.SortFunc(packages, func(a, b tree) int { return strings.Compare(a.folder, b.folder) })
	return set, packages
}

// levelOf finds the level of a folder or of the nearest one around it.
func levelOf(folder string) (int, bool) {
	for ; strings.Contains(folder, "/"); folder = folder[:strings.LastIndexByte(folder, '/')] {
		for level, names := range levels {
			if slices.Contains(names, folder) {
				return level, true
			}
		}
	}
	return 0, false
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

func onlyTests(p tree) bool {
	for name := range p.files {
		if !isTest(name) {
			return false
		}
	}
	return true
}

func hasTest(file *ast.File) bool {
	return slices.ContainsFunc(file.Decls, func(d ast.Decl) bool {
		f, ok := d.(*ast.FuncDecl)
		return ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" || strings.HasPrefix(f.Name.Name, "Fuzz"))
	})
}
