# A reader of JSON (RFC 8259): objects become dictionaries, arrays vectors, null nothing; whole numbers Int.
mutable struct JSONText
    const text::String
    at::Int
end

function read_json(text::AbstractString)
    source = JSONText(text, 1)
    value = json_value!(source)
    isnothing(next_token!(source)) || json_error(source, "the end")
    return value
end

json_error(source, expected) = throw(ArgumentError("got no JSON at byte $(source.at): expected $expected"))

# The next character that is no space, without passing it; nothing at the end.
function next_token!(source::JSONText)
    source.at = something(findnext(!in(" \t\r\n"), source.text, source.at), ncodeunits(source.text) + 1)
    return source.at > ncodeunits(source.text) ? nothing : source.text[source.at]
end

function json_value!(source::JSONText)
    c = next_token!(source)
    c == '{' && return Dict{String,Any}(json_items!(json_pair!, source, '}'))
    c == '[' && return Any[json_items!(json_value!, source, ']')...]
    c == '"' && return json_string!(source)
    for (word, value) in (("true", true), ("false", false), ("null", nothing))
        startswith(SubString(source.text, source.at), word) || continue
        source.at += length(word)
        return value
    end
    number = match(r"\G-?\d+(\.\d+)?([eE][+-]?\d+)?", source.text, source.at)
    isnothing(number) && json_error(source, "a value")
    source.at += ncodeunits(number.match)
    return isnothing(number[1]) && isnothing(number[2]) ? parse(Int, number.match) : parse(Float64, number.match)
end

function json_items!(item!, source, closing)
    items = Any[]
    source.at += 1
    next_token!(source) == closing && (source.at += 1; return items)
    while true
        push!(items, item!(source))
        c = next_token!(source)
        c in (',', closing) || json_error(source, "a comma or $closing")
        source.at += 1
        c == closing && return items
    end
end

function json_pair!(source)
    next_token!(source) == '"' || json_error(source, "a name")
    name = json_string!(source)
    next_token!(source) == ':' || json_error(source, "a colon")
    source.at += 1
    return name => json_value!(source)
end

function json_string!(source)
    found = match(r"\G\"((?:[^\"\\\x00-\x1f]|\\.)*)\"", source.text, source.at)
    isnothing(found) && json_error(source, "a string")
    source.at += ncodeunits(found.match)
    return unescape_json(found[1])
end

# \u of two surrogates is one character; the other escapes are Julia's.
function unescape_json(text)
    pairs = r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)"
    joined = replace(text, pairs => function (pair)
        high, low = (parse(Int, pair[range]; base = 16) for range in (3:6, 9:12))
        return string(Char(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)))
    end)
    return unescape_string(replace(joined, r"(?<!\\)((?:\\\\)*)\\/" => s"\1/"))
end
