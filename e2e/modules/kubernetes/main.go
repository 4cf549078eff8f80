// One program that holds all of Kubernetes and etcd. Its first argument says
// which part of it to be. One binary links the shared code once: building it
// takes a third of the time, and a third of the disk, of seven binaries.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	_ "time/tzdata" // the time zones of CronJobs, where the host has none

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var programs = map[string]func(){
	"apiserver":          func() { run(apiserver.NewAPIServerCommand()) },
	"controller-manager": func() { run(controllermanager.NewControllerManagerCommand()) },
	"scheduler":          func() { run(scheduler.NewSchedulerCommand()) },
	"kubelet":            func() { run(kubelet.NewKubeletCommand(context.Background())) },
	"kube-proxy":         func() { run(kubeproxy.NewProxyCommand()) },
	"kubectl":            runKubectl,
	"etcd":               func() { etcdmain.Main(os.Args) },
}

func main() {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "usage: %s <%s> [flags]\n", os.Args[0], strings.Join(names(), "|"))
		os.Exit(2)
	}
	program := programs[os.Args[1]]
	os.Args = os.Args[1:]
	program()
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

// runKubectl differs from run as the real kubectl does: it prints its own
// errors, and an error's exit code is the one of the failed command.
func runKubectl() {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

func names() []string {
	var all []string
	for name := range programs {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
