// A real git server: every request goes to `git http-backend`, so what Flux
// meets here is what it meets in production. It serves and accepts pushes to
// the bare repositories of one folder, without asking who is there: run it
// only where nobody else can reach it.
package main

import (
	"bytes"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3000", "address to serve on")
	root := flag.String("root", ".", "folder that holds NAME.git")
	flag.Parse()

	execPath, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		log.Fatalf("git is not there (apt-get install git): %v", err)
	}
	folder, err := filepath.Abs(*root)
	if err != nil {
		log.Fatal(err)
	}
	backend := &cgi.Handler{
		Path:       filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"),
		Root:       "/",
		Env:        []string{"GIT_PROJECT_ROOT=" + folder, "GIT_HTTP_EXPORT_ALL=1"},
		InheritEnv: []string{"HOME"},
	}
	log.Printf("serving %s on %s", folder, *listen)
	log.Fatal(http.ListenAndServe(*listen, withLength(backend)))
}

// withLength reads a chunked body into memory: git sends pushes of more than
// 1 MB that way, and CGI cannot take a body of unknown length.
func withLength(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s", r.Method, r.URL)
		if len(r.TransferEncoding) > 0 {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			r.TransferEncoding = nil
			r.ContentLength = int64(len(body))
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}
