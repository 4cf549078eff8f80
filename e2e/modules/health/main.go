// Says what Flux and Argo CD would make of objects. Objects come as JSON, one
// to a line; for each a line goes out with both verdicts. Flux's is computed
// by the library that Flux uses, Argo CD's by a health check in the
// interpreter that Argo CD uses.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Verdict is what one of them says.
type Verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// Verdicts is a line of the output.
type Verdicts struct {
	Kstatus Verdict `json:"kstatus"`
	Argo    Verdict `json:"argo"`
}

func main() {
	checks := flag.String("checks", "", "folder of health checks, as GROUP/KIND/health.lua")
	flag.Parse()
	if err := run(*checks, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(checks string, in io.Reader, out io.Writer) error {
	reader := bufio.NewReader(in)
	writer := json.NewEncoder(out)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		verdicts, err := judge(checks, line)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err := writer.Encode(verdicts); err != nil {
			return err
		}
	}
}

func judge(checks string, line []byte) (Verdicts, error) {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(line); err != nil {
		return Verdicts{}, err
	}
	flux, err := status.Compute(object)
	if err != nil {
		return Verdicts{}, fmt.Errorf("kstatus: %w", err)
	}
	kind := object.GroupVersionKind()
	script, err := os.ReadFile(filepath.Join(checks, kind.Group, kind.Kind, "health.lua"))
	if err != nil {
		return Verdicts{}, err
	}
	argo, err := health(object.Object, string(script))
	if err != nil {
		return Verdicts{}, fmt.Errorf("health.lua of %s: %w", kind.Kind, err)
	}
	return Verdicts{
		Kstatus: Verdict{Status: flux.Status.String(), Message: flux.Message},
		Argo:    argo,
	}, nil
}
