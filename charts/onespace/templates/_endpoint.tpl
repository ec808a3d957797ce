{{/* A chain in place of a pipeline: into any pipeline Swift puts gatekeeper back, which hides the timestamps that agents need.
     On loopback only: whoever reaches it may read and write everything. (dict "root" $ "pool" $pool) */}}
{{- define "onespace.internalEndpoint" -}}
{{- $endpoint := .root.Values.internalEndpoint -}}
{{- $chain := list (dict "name" "catch_errors" "settings" (dict "use" "egg:swift#catch_errors")) (dict "name" "proxy_logging" "settings" (dict "use" "egg:swift#proxy_logging")) -}}
{{- with $endpoint.memcacheServers -}}
{{- $chain = append $chain (dict "name" "memcache" "settings" (dict "use" "egg:swift#memcache" "memcache_servers" .)) -}}
{{- end -}}
{{- $chain = append $chain (dict "name" "symlink" "settings" (dict "use" "egg:swift#symlink")) -}}
{{- $chain = concat $chain $endpoint.filters -}}
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {{ .pool.endpointPort }}
user = {{ $endpoint.user }}
workers = {{ $endpoint.workers }}
{{ range $at, $filter := $chain }}
[filter-app:{{ if eq $at 0 }}main{{ else }}{{ $filter.name }}{{ end }}]
{{- range $key, $value := $filter.settings }}
{{ $key }} = {{ $value }}
{{- end }}
next = {{ if lt (add1 $at | int) (len $chain) }}{{ (index $chain (add1 $at | int)).name }}{{ else }}proxy-server{{ end }}
{{ end }}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
{{- end }}
