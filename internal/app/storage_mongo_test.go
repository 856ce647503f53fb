package app

import "testing"

// What is told of an address is its servers, whatever the name and the password in it are made of.
func TestServersAlone(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"mongodb://u:p?w@a.example:1,b.example/x?w=1": "a.example:1,b.example", "mongodb://u:p/w@a.example": "a.example", "mongodb://a.example?w=1": "a.example",
		"mongodb+srv://u:p@a.example/?authSource=admin": "a.example", "mongodb://": "",
	} {
		if got := servers(url); got != want {
			t.Errorf("%s: %s", url, got)
		}
	}
}
