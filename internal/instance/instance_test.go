package instance

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// The file is made once, however many ask at the same time, explains itself, and
// is the identity from then on.
func TestFileIsMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "uuid.txt")
	ids := make([]uuid.UUID, 20)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			id, err := FromFile(file)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] || id == uuid.Nil {
			t.Fatalf("got %v", ids)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), ids[0].String()+"\n") || !strings.Contains(string(text), Variable) {
		t.Errorf("file is %q, %v", text, err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "gone"), dangling); err != nil {
		t.Fatal(err)
	}
	const id = "2b708999-3bfb-46af-8b52-9417daf66d66"
	for name, row := range map[string]struct {
		file string
		want string // the UUID, or a part of the error
	}{
		"one line":            {write("one", id+"\n"), id},
		"no end of line":      {write("no-end", id), id},
		"with spaces":         {write("spaces", "  "+id+" \r\n"), id},
		"with an explanation": {write("more", id+"\n\nsome words\n"), id},
		"upper case":          {write("upper", strings.ToUpper(id)+"\n"), id},
		"empty":               {write("empty", ""), "is empty: delete it"},
		"no UUID":             {write("words", "production-3\n"), `is "production-3", want a UUID`},
		"UUID below":          {write("below", "\n"+id+"\n"), "want a UUID"},
		"zero":                {write("zero", uuid.Nil.String()), "want a UUID"},
		"dangling link":       {dangling, "make the file that it points to, or remove it"},
		"directory":           {dir, "cannot read"},
		"no such directory":   {filepath.Join(dir, "none", "uuid.txt"), "name another in ASYNCNATS_UUID"},
	} {
		got, err := FromFile(row.file)
		if err != nil && !strings.Contains(err.Error(), row.want) || err == nil && got.String() != row.want {
			t.Errorf("%s: got %v, %v; want %s", name, got, err, row.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(Variable, "")
	first, err := UUID()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := FromFile(DefaultFile); again != first {
		t.Errorf("got %v, %v from the default file, want %v", again, err, first)
	}
	t.Setenv(Variable, "other.txt")
	if other, err := UUID(); err != nil || other == first {
		t.Errorf("got %v, %v from another file", other, err)
	}
}
