#include "reward_service/math/parser.h"

#include <algorithm>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "reward_service/math/units.h"
#include "reward_service/math/words.h"
#include "services/runtime/status_macros.h"

namespace e3::math {
namespace {

using NodePointer = const Node*;
using Result = absl::StatusOr<const Node*>;

const absl::flat_hash_map<absl::string_view, Function>& Functions() {
  static const auto* functions = new absl::flat_hash_map<absl::string_view, Function>{
      {"sin", Function::kSin},        {"cos", Function::kCos},
      {"tan", Function::kTan},        {"cot", Function::kCot},
      {"sec", Function::kSec},        {"csc", Function::kCsc},
      {"arcsin", Function::kArcsin},  {"arccos", Function::kArccos},
      {"arctan", Function::kArctan},  {"sinh", Function::kSinh},
      {"cosh", Function::kCosh},      {"tanh", Function::kTanh},
      {"arsinh", Function::kArcsinh}, {"arcosh", Function::kArccosh},
      {"artanh", Function::kArctanh}, {"ln", Function::kLn},
      {"log", Function::kLog},        {"lg", Function::kLog},
      {"exp", Function::kExp},        {"cis", Function::kCis},
      {"max", Function::kMax},        {"min", Function::kMin},
      {"gcd", Function::kGcd},        {"lcm", Function::kLcm}};
  return *functions;
}

const absl::flat_hash_set<absl::string_view>& Greek() {
  static const auto* names = new absl::flat_hash_set<absl::string_view>{
      "alpha", "beta",    "gamma", "delta", "epsilon", "zeta",  "eta",   "theta",  "iota",
      "kappa", "lambda",  "mu",    "nu",    "xi",      "rho",   "sigma", "tau",    "upsilon",
      "phi",   "chi",     "psi",   "omega", "Gamma",   "Delta", "Theta", "Lambda", "Xi",
      "Sigma", "Upsilon", "Phi",   "Psi",   "Omega",   "ell",   "hbar"};
  return *names;
}

std::optional<Relation> RelationOf(const Token& token) {
  if (token.kind == TokenKind::kSymbol) {
    if (token.text == "=") return Relation::kEqual;
    if (token.text == "<") return Relation::kLess;
    if (token.text == ">") return Relation::kGreater;
  } else if (token.kind == TokenKind::kCommand) {
    if (token.text == "le") return Relation::kLessEqual;
    if (token.text == "ge") return Relation::kGreaterEqual;
    if (token.text == "ne") return Relation::kNotEqual;
    if (token.text == "approx") return Relation::kApprox;
    if (token.text == "in") return Relation::kIn;
  }
  return std::nullopt;
}

class Parser {
 public:
  Parser(std::vector<Token> tokens, const Limits& limits, Arena* arena)
      : tokens_(std::move(tokens)), limits_(limits), arena_(arena) {}

  Result Answer() {
    // "≈ 3.2", "= 5": the left-hand side is the question's.
    bool approximate = false;
    if (Peek().kind == TokenKind::kText) {  // \text{The answer is } 5
      std::string text = absl::AsciiStrToLower(absl::StripAsciiWhitespace(Peek().text));
      if (absl::EndsWith(text, " is") || absl::EndsWith(text, ":") || absl::EndsWith(text, "="))
        ++at_;
    }
    while (std::optional<Relation> relation = RelationOf(Peek())) {
      if (*relation != Relation::kEqual && *relation != Relation::kApprox) break;
      approximate = approximate || *relation == Relation::kApprox;
      ++at_;
    }
    E3_ASSIGN_OR_RETURN(NodePointer node, List());
    if (Peek().kind != TokenKind::kEnd) return Unexpected();
    E3_RETURN_IF_ERROR(Seal(node));
    if (approximate) {
      Node* copy = arena_->New(node->kind);
      *copy = *node;
      copy->approximate = true;
      node = copy;
    }
    return node;
  }

 private:
  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  bool IsSymbol(char c, size_t ahead = 0) const {
    const Token& token = Peek(ahead);
    return token.kind == TokenKind::kSymbol && token.text[0] == c;
  }
  bool IsCommand(absl::string_view name, size_t ahead = 0) const {
    const Token& token = Peek(ahead);
    return token.kind == TokenKind::kCommand && token.text == name;
  }
  bool TakeSymbol(char c) {
    if (!IsSymbol(c)) return false;
    ++at_;
    return true;
  }
  bool TakeCommand(absl::string_view name) {
    if (!IsCommand(name)) return false;
    ++at_;
    return true;
  }
  absl::Status Fail(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(what, " at character ", Peek().position + 1));
  }
  absl::Status Unexpected() const {
    if (Peek().kind == TokenKind::kEnd) return Fail("the answer breaks off");
    return Fail(absl::StrCat("unexpected '", Peek().text, "'"));
  }

  NodePointer Call(Function function, std::vector<NodePointer> args) {
    Node* node = arena_->New(Kind::kFunction, std::move(args));
    node->function = function;
    return node;
  }
  NodePointer Measure(NodePointer value, std::string unit) {
    Node* node = arena_->New(Kind::kMeasure, {value});
    node->name = std::move(unit);
    return node;
  }
  NodePointer Variable(std::string name) {
    Node* node = arena_->New(Kind::kVariable);
    node->name = std::move(name);
    return node;
  }
  // Whether the unit of `node` goes with the value through products and quotients.
  static bool HasUnit(NodePointer node) {
    return node->kind == Kind::kMeasure && node->name != "%" && node->name != "°";
  }
  // The items of a list, or the only one.
  static std::vector<NodePointer> ItemsOf(NodePointer node) {
    return node->kind == Kind::kList ? node->args : std::vector<NodePointer>{node};
  }
  bool AtPlusMinus() const { return IsCommand("pm") || IsCommand("mp"); }
  // "3 to 5"
  bool AtTo() const {
    return Peek().kind == TokenKind::kText && absl::StripAsciiWhitespace(Peek().text) == "to";
  }
  bool IsWords(const Token& token) const {
    return token.kind == TokenKind::kText || token.kind == TokenKind::kWord;
  }

  // Trees lean to the left where operators of one kind follow one another; their height is bounded.
  static constexpr int kMaxChain = 500;
  static absl::Status TooLong() {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxChain, " operators in a row"));
  }

  // Bounds the height of the finished tree, which the evaluators walk by recursion, and marks where
  // ± stands.
  static constexpr size_t kMaxHeight = 400;
  static absl::Status Seal(NodePointer root) {
    std::vector<std::pair<NodePointer, size_t>> path = {{root, 0}};
    while (!path.empty()) {
      auto& [node, next] = path.back();
      if (next == node->args.size()) {
        node->plus_minus = node->kind == Kind::kPlusMinus;
        for (NodePointer arg : node->args) node->plus_minus = node->plus_minus || arg->plus_minus;
        path.pop_back();
        continue;
      }
      path.emplace_back(node->args[next++], 0);
      if (path.size() > kMaxHeight)
        return absl::ResourceExhaustedError(
            absl::StrCat("a tree of more than ", kMaxHeight, " levels"));
    }
    return absl::OkStatus();
  }

  // Counts a level of nesting while it lives.
  struct Level {
    explicit Level(Parser* parser) : parser(parser) { ++parser->depth_; }
    ~Level() { --parser->depth_; }
    Parser* parser;
  };
  absl::Status CheckSize() const {
    if (depth_ > limits_.depth)
      return absl::ResourceExhaustedError(
          absl::StrCat("nested more than ", limits_.depth, " deep"));
    if (static_cast<int64_t>(arena_->size()) > limits_.nodes)
      return absl::ResourceExhaustedError(absl::StrCat("more than ", limits_.nodes, " terms"));
    return absl::OkStatus();
  }

  // "and", "or", ", and": separates the answers of a list.
  bool IsSeparatorText(const Token& token) const {
    if (!IsWords(token)) return false;
    std::string text = absl::AsciiStrToLower(token.text);
    absl::string_view t = absl::StripAsciiWhitespace(text);
    while (!t.empty() && (t[0] == ',' || t[0] == ';' || t[0] == ' ')) t.remove_prefix(1);
    while (!t.empty() && (t.back() == ',' || t.back() == ';' || t.back() == ' '))
      t.remove_suffix(1);
    return t.empty() || t == "and" || t == "or";
  }

  bool TakeSeparator(char* joint = nullptr) {
    bool taken = false;
    while (IsSymbol(',') || IsSymbol(';') || IsSymbol('&') || IsSeparatorText(Peek()) ||
           (IsCommand("\\") && matrix_depth_ == 0)) {
      if (IsSymbol('&') && matrix_depth_ > 0) break;
      if (joint != nullptr && IsWords(Peek()))
        *joint = absl::StrContains(absl::AsciiStrToLower(Peek().text), "or") ? 'o' : 'a';
      ++at_;
      taken = true;
    }
    return taken;
  }

  bool AtListEnd() const {
    const Token& t = Peek();
    if (t.kind == TokenKind::kEnd) return true;
    if (t.text == "]" && brackets_ == 0) return false;  // ]1, 2[
    if (t.kind == TokenKind::kSymbol) return absl::StrContains(")]}&", t.text);
    if (t.kind == TokenKind::kCommand)
      return t.text == "}" || t.text == "rangle" || t.text == "\\" ||
             absl::StartsWith(t.text, "end:");
    return false;
  }

  Result List() {
    E3_RETURN_IF_ERROR(CheckSize());
    std::vector<NodePointer> items;
    char joint = ',';
    TakeSeparator();
    while (!AtListEnd()) {
      E3_ASSIGN_OR_RETURN(NodePointer item, RelationChain());
      items.push_back(item);
      if (static_cast<int64_t>(items.size()) > limits_.list_items)
        return absl::ResourceExhaustedError(
            absl::StrCat("a list of more than ", limits_.list_items));
      if (!TakeSeparator(&joint)) break;
    }
    if (items.empty()) return Unexpected();
    if (items.size() == 1) return items[0];
    Node* list = arena_->New(Kind::kList, std::move(items));
    list->joint = joint;
    return list;
  }

  Result RelationChain() {
    E3_ASSIGN_OR_RETURN(NodePointer left, Ratio());
    if (!RelationOf(Peek())) return left;
    Node* chain = arena_->New(Kind::kRelation, {left});
    while (std::optional<Relation> relation = RelationOf(Peek())) {
      ++at_;
      E3_ASSIGN_OR_RETURN(NodePointer right, Ratio());
      chain->relations.push_back(*relation);
      chain->args.push_back(right);
    }
    return chain;
  }

  Result Ratio() {
    E3_ASSIGN_OR_RETURN(NodePointer first, Sets());
    if (set_builder_ || !(IsSymbol(':') || AtTo())) return first;
    Node* ratio = arena_->New(Kind::kRatio, {first});
    while (IsSymbol(':') || AtTo()) {
      ++at_;
      E3_ASSIGN_OR_RETURN(NodePointer next, Sets());
      ratio->args.push_back(next);
    }
    // The unit of the last part is that of the whole: 8:34 p.m.
    if (ratio->args.back()->kind == Kind::kMeasure) {
      NodePointer last = ratio->args.back();
      ratio->args.back() = last->args[0];
      return Measure(ratio, last->name);
    }
    return ratio;
  }

  Result Sets() {
    E3_ASSIGN_OR_RETURN(NodePointer left, Sum());
    for (int count = 0;; ++count) {
      if (count > kMaxChain) return TooLong();
      Kind kind;
      if (IsCommand("cup"))
        kind = Kind::kUnion;
      else if (IsCommand("cap"))
        kind = Kind::kIntersection;
      else if (IsCommand("setminus"))
        kind = Kind::kDifference;

      // (−∞, 1) U (2, ∞): a plain U.
      else if (Peek().kind == TokenKind::kLetter && Peek().text == "U" && IsSetLike(left))
        kind = Kind::kUnion;
      else
        return left;
      ++at_;
      E3_ASSIGN_OR_RETURN(NodePointer right, Sum());
      left = arena_->New(kind, {left, right});
      E3_RETURN_IF_ERROR(CheckSize());
    }
  }

  static bool IsSetLike(NodePointer node) {
    return node->kind == Kind::kSequence || node->kind == Kind::kSet ||
           node->kind == Kind::kUnion || node->kind == Kind::kReals;
  }

  Result Sum() {
    E3_ASSIGN_OR_RETURN(NodePointer first, Product());
    std::vector<NodePointer> terms = {first};
    while (true) {
      // ℝ − {3}: a difference of sets.
      if (IsSymbol('-') && terms.size() == 1 &&
          (first->kind == Kind::kReals || first->kind == Kind::kUnion)) {
        ++at_;
        E3_ASSIGN_OR_RETURN(NodePointer right, Product());
        return arena_->New(Kind::kDifference, {first, right});
      }
      if (TakeSymbol('+')) {
        if (TakeCommand("ldots")) {
          E3_ASSIGN_OR_RETURN(NodePointer progression, Progression(std::move(terms)));
          terms = {progression};
          continue;
        }
        E3_ASSIGN_OR_RETURN(NodePointer term, Product());
        terms.push_back(term);
      } else if (TakeSymbol('-')) {
        E3_ASSIGN_OR_RETURN(NodePointer term, Product());
        terms.push_back(arena_->New(Kind::kNegative, {term}));
      } else if (AtPlusMinus()) {
        E3_ASSIGN_OR_RETURN(NodePointer term, PlusMinus(&Parser::Product));
        terms.push_back(term);
      } else {
        break;
      }
      E3_RETURN_IF_ERROR(CheckSize());
    }
    if (terms.size() == 1) return terms[0];
    // A unit at the end belongs to the whole sum: 480 + 480\sqrt{3} feet.
    if (IsTrailingUnit(terms)) {
      NodePointer last = terms.back();
      terms.back() = last->args[0];
      return Measure(arena_->New(Kind::kSum, std::move(terms)), last->name);
    }
    return arena_->New(Kind::kSum, std::move(terms));
  }

  static bool IsTrailingUnit(const std::vector<NodePointer>& terms) {
    return HasUnit(terms.back()) && std::none_of(terms.begin(), terms.end() - 1, [](NodePointer t) {
             return t->kind == Kind::kMeasure ||
                    (t->kind == Kind::kNegative && t->args[0]->kind == Kind::kMeasure);
           });
  }

  // 1 + 2 + … + 100 (after the dots): an arithmetic progression of integers, in full.
  Result Progression(std::vector<NodePointer> terms) {
    if (!TakeSymbol('+')) return Unexpected();
    E3_ASSIGN_OR_RETURN(NodePointer last, Product());
    int64_t a = 0, b = 0, z = 0;
    if (terms.size() < 2 || terms.back()->kind != Kind::kNumber || last->kind != Kind::kNumber ||
        terms[terms.size() - 2]->kind != Kind::kNumber || !terms.back()->number.FitsInt(&b) ||
        !terms[terms.size() - 2]->number.FitsInt(&a) || !last->number.FitsInt(&z)) {
      return Fail("an ellipsis that is not an arithmetic progression");
    }
    constexpr int64_t kLimit = int64_t{1} << 40;
    if (a < 0 || b <= a || z < b || z > kLimit || (z - b) % (b - a) != 0)
      return Fail("an ellipsis that is not an arithmetic progression");
    const int64_t count = (z - b) / (b - a);  // terms after b
    // Σ = count · (first + last) / 2, exactly.
    Rational sum(count), ends(b + (b - a) + z);
    fmpq_mul(sum.get(), sum.get(), ends.get());
    fmpq_div_2exp(sum.get(), sum.get(), 1);
    Node* rest = arena_->New(Kind::kNumber);
    rest->number = std::move(sum);
    terms.push_back(rest);
    return arena_->New(Kind::kSum, std::move(terms));
  }

  // ±a or ∓a, of what `operand` parses.
  Result PlusMinus(Result (Parser::*operand)()) {
    const bool negative = IsCommand("mp");
    ++at_;
    E3_ASSIGN_OR_RETURN(NodePointer term, (this->*operand)());
    Node* node = arena_->New(Kind::kPlusMinus, {term});
    node->negative = negative;
    return node;
  }

  // Whether the next token begins a factor that needs no sign of multiplication.
  bool StartsFactor(bool after_number) const {
    const Token& t = Peek();
    switch (t.kind) {
      case TokenKind::kNumber:
        return !after_number;
      case TokenKind::kLetter:
        return true;
      case TokenKind::kWord:
        return true;
      case TokenKind::kText:
        return false;
      case TokenKind::kSymbol:
        // ]1, 2[: a bracket that nothing follows closes.
        if (t.text == "[")
          return Peek(1).kind != TokenKind::kEnd && !IsCommand("cup", 1) && !IsSymbol(',', 1);
        return t.text == "(" || t.text == "{" || (t.text == "|" && bars_ == 0);
      case TokenKind::kCommand:
        return t.text == "frac" || t.text == "sqrt" || t.text == "cbrt" || t.text == "pi" ||
               t.text == "infty" || t.text == "binom" || t.text == "lfloor" || t.text == "lceil" ||
               t.text == "{" || t.text == "sum" || t.text == "prod" || t.text == "langle" ||
               t.text == "triangle" || t.text == "abs" || t.text == "overline" ||
               t.text == "floor" || t.text == "ceil" || t.text == "angle" ||
               Greek().contains(t.text) || Functions().contains(t.text) ||
               absl::StartsWith(t.text, "begin:") || absl::StartsWith(t.text, "U");
      case TokenKind::kEnd:
        return false;
    }
    return false;
  }

  Result Product() {
    E3_RETURN_IF_ERROR(CheckSize());
    E3_ASSIGN_OR_RETURN(NodePointer left, Unary());
    Node* open = nullptr;  // a product made here: takes further factors
    auto multiply = [&](NodePointer right) {
      if (left == open && right->kind != Kind::kMeasure) {
        open->args.push_back(right);
        return;
      }
      NodePointer product = Times(left, right);
      open = product->kind == Kind::kProduct ? arena_->last() : nullptr;
      left = product;
    };
    for (int divisions = 0;;) {
      if (TakeSymbol('*')) {
        E3_ASSIGN_OR_RETURN(NodePointer right, Unary());
        multiply(right);
      } else if (TakeSymbol('/')) {
        E3_ASSIGN_OR_RETURN(NodePointer right, Unary());
        left = Over(left, right);
        if (++divisions > kMaxChain) return TooLong();
      } else if (StartsFactor(tokens_[at_ - 1].kind == TokenKind::kNumber)) {
        if (Peek().kind == TokenKind::kLetter && Peek().text == "U" && IsSetLike(left)) break;
        if (IsSetLike(left) && left->kind != Kind::kSequence) break;
        E3_ASSIGN_OR_RETURN(NodePointer right, Power());
        if (right->kind == Kind::kQuotient && right->args[0]->kind == Kind::kText &&
            right->args[1]->kind == Kind::kText) {
          // 25 \frac{\text{km}}{\text{h}}
          left = Measure(left, absl::StrCat(right->args[0]->name, "/", right->args[1]->name));
        } else if (left->kind == Kind::kMeasure && IsMeasurable(left->name)) {
          E3_ASSIGN_OR_RETURN(left, Together(left, right));
        } else {
          multiply(right);
        }
      } else {
        break;
      }
      E3_RETURN_IF_ERROR(CheckSize());
    }
    return left;
  }

  // Whether a second quantity may stand behind one of this unit.
  static bool IsMeasurable(absl::string_view unit) {
    int power = 1;
    return unit != "$" && unit != "euro" && ParseUnit(unit, &power) != nullptr;
  }

  // 1 hour 30 minutes: one quantity, in the smaller unit.
  Result Together(NodePointer large, NodePointer small) {
    int large_power = 1, small_power = 1;
    const Unit* l = ParseUnit(large->name, &large_power);
    const Unit* r = small->kind == Kind::kMeasure ? ParseUnit(small->name, &small_power) : nullptr;
    if (l == nullptr || r == nullptr || absl::string_view(l->dimension) != r->dimension ||
        large_power != 1 || small_power != 1)
      return Fail("a value behind a unit");
    NodePointer ratio =
        arena_->New(Kind::kQuotient, {arena_->Integer(l->numerator * r->denominator),
                                      arena_->Integer(l->denominator * r->numerator)});
    NodePointer sum = arena_->New(
        Kind::kSum, {arena_->New(Kind::kProduct, {large->args[0], ratio}), small->args[0]});
    return Measure(sum, small->name);
  }

  NodePointer Times(NodePointer a, NodePointer b) {
    // $5 · 3, 5 cm · 3: the unit is the product's.
    if (HasUnit(a) && b->kind != Kind::kMeasure) return Measure(Times(a->args[0], b), a->name);
    if (HasUnit(b) && a->kind != Kind::kMeasure) return Measure(Times(a, b->args[0]), b->name);
    return arena_->New(Kind::kProduct, {a, b});
  }

  NodePointer Over(NodePointer a, NodePointer b) {
    if (b->kind == Kind::kText && IsValue(a) && a->kind != Kind::kMeasure)
      return Measure(a, absl::StrCat("/", b->name));
    // $12/\text{hour}, miles/h
    if (a->kind == Kind::kMeasure && (b->kind == Kind::kText || b->kind == Kind::kVariable))
      return Measure(a->args[0], absl::StrCat(a->name, "/", b->name));
    if (HasUnit(a)) return Measure(arena_->New(Kind::kQuotient, {a->args[0], b}), a->name);
    return arena_->New(Kind::kQuotient, {a, b});
  }

  Result Unary() {
    if (!IsSymbol('-') && !IsSymbol('+') && !AtPlusMinus()) return Power();
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    if (AtPlusMinus()) return PlusMinus(&Parser::Unary);
    if (TakeSymbol('+')) return Unary();
    ++at_;
    E3_ASSIGN_OR_RETURN(NodePointer value, Unary());
    if (value->kind == Kind::kMeasure)
      return Measure(arena_->New(Kind::kNegative, {value->args[0]}), value->name);
    return arena_->New(Kind::kNegative, {value});
  }

  Result Power() {
    E3_RETURN_IF_ERROR(CheckSize());
    E3_ASSIGN_OR_RETURN(NodePointer base, Postfix());
    for (int count = 0; IsSymbol('^'); ++count) {
      if (count > 100) return TooLong();
      if (TakeDegree()) {
        TakeTemperature();
        E3_ASSIGN_OR_RETURN(base, Suffixes(Measure(base, "°")));  // 50^\circ\text{F}
        continue;
      }
      if (TakeOrdinal()) continue;
      ++at_;
      if (IsSymbol('\'') || IsCommand("'")) {  // f^\prime
        ++at_;
        continue;
      }
      E3_ASSIGN_OR_RETURN(NodePointer exponent, Exponent());
      base = arena_->New(Kind::kPower, {base, exponent});
      E3_ASSIGN_OR_RETURN(base, Suffixes(base));
    }
    return base;
  }

  // The C or F of °C and °F.
  void TakeTemperature() {
    if (Peek().kind == TokenKind::kLetter && (Peek().text == "C" || Peek().text == "F")) ++at_;
  }

  // ^\circ, ^{\circ}, ° after a value.
  bool TakeDegree() {
    if (IsSymbol('^') && IsCommand("circ", 1)) {
      at_ += 2;
      return true;
    }
    if (IsSymbol('^') && IsSymbol('{', 1) && IsCommand("circ", 2) && IsSymbol('}', 3)) {
      at_ += 4;
      return true;
    }
    return false;
  }

  // 3^{rd}, 25^{\text{th}}: says nothing about the value.
  bool TakeOrdinal() {
    size_t i = at_ + 1;
    const bool group = IsSymbol('{', 1);
    if (group) ++i;
    std::string text;
    while (i < tokens_.size() &&
           (tokens_[i].kind == TokenKind::kLetter || tokens_[i].kind == TokenKind::kText ||
            tokens_[i].kind == TokenKind::kWord)) {
      text += tokens_[i++].text;
      if (text.size() > 2) return false;
    }
    if (text != "st" && text != "nd" && text != "rd" && text != "th") return false;
    if (group) {
      if (i >= tokens_.size() || tokens_[i].text != "}") return false;
      ++i;
    }
    at_ = i;
    return true;
  }

  // One token, or a group, or "-2": 2^10 is 2^{10}.
  Result Exponent() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    if (TakeSymbol('-')) {
      E3_ASSIGN_OR_RETURN(NodePointer value, Exponent());
      return arena_->New(Kind::kNegative, {value});
    }
    if (TakeSymbol('+')) return Exponent();
    if (IsSymbol('*')) {
      ++at_;
      return Variable("*");
    }
    E3_ASSIGN_OR_RETURN(NodePointer value, Primary());
    // 2^2^3 is 2^(2^3) in plain text.
    if (IsSymbol('^') && !IsCommand("circ", 1)) {
      ++at_;
      E3_ASSIGN_OR_RETURN(NodePointer exponent, Exponent());
      return arena_->New(Kind::kPower, {value, exponent});
    }
    return value;
  }

  Result Postfix() {
    E3_ASSIGN_OR_RETURN(NodePointer value, Primary());
    return Suffixes(value);
  }

  Result Suffixes(NodePointer value) {
    for (int count = 0;; ++count) {
      if (count > 100) return TooLong();
      if (IsSymbol('!')) {
        ++at_;
        value = Call(TakeSymbol('!') ? Function::kDoubleFactorial : Function::kFactorial, {value});
        E3_RETURN_IF_ERROR(CheckSize());
        continue;
      }
      std::string unit;
      if (IsSymbol('%')) {
        ++at_;
        unit = "%";
      } else if (IsCommand("circ")) {
        ++at_;
        TakeTemperature();
        unit = "°";
      } else if (IsCommand("$") && IsValue(value)) {
        ++at_;
        unit = "$";
      } else if (IsCommand("euro") && IsValue(value)) {
        ++at_;
        unit = "euro";
      } else if ((Peek().kind == TokenKind::kText && !IsSeparatorText(Peek()) && !AtTo()) ||
                 (Peek().kind == TokenKind::kWord && !IsSeparatorText(Peek()) && IsValue(value) &&
                  (FindUnit(Peek().text) != nullptr || Peek().space))) {
        if (!CanBeUnit(Peek().text)) return Unexpected();

        unit = TakeUnit();
      } else if (IsSymbol('\'') && value->kind == Kind::kVariable) {
        ++at_;
        value = Variable(value->name + "'");
        continue;
      } else {
        return value;
      }
      if (int64_t factor = NamedPower(unit); factor != 0) {
        value = arena_->New(Kind::kProduct, {value, arena_->Integer(factor)});
        continue;
      }
      if (unit == "degrees" || unit == "degree") unit = "°";
      if (unit == "percent") unit = "%";
      value = Measure(value, std::move(unit));
      E3_RETURN_IF_ERROR(CheckSize());
    }
  }

  // Words after a value, with what raises and divides them: "square feet", "cm" "^2", "m" "/" "s".
  std::string TakeUnit() {
    std::string unit;
    while (true) {
      const Token& t = Peek();
      if ((t.kind == TokenKind::kText || t.kind == TokenKind::kWord) && !IsSeparatorText(t)) {
        if (!unit.empty() && unit.back() != '/') unit += ' ';
        unit += t.text;
        ++at_;
      } else if (IsSymbol('^') && IsSymbol('{', 1) && IsSymbol('-', 2) &&
                 Peek(3).kind == TokenKind::kNumber && IsSymbol('}', 4)) {
        absl::StrAppend(&unit, "^-", Peek(3).text);
        at_ += 5;
      } else if (IsSymbol('*') && Peek(1).kind == TokenKind::kText) {
        unit += ' ';
        ++at_;
      } else if (IsSymbol('^') && Peek(1).kind == TokenKind::kNumber) {
        absl::StrAppend(&unit, "^", Peek(1).text);
        at_ += 2;
      } else if (IsSymbol('^') && IsSymbol('{', 1) && Peek(2).kind == TokenKind::kNumber &&
                 IsSymbol('}', 3)) {
        absl::StrAppend(&unit, "^", Peek(2).text);
        at_ += 4;
      } else if (IsSymbol('/') &&
                 (Peek(1).kind == TokenKind::kText || Peek(1).kind == TokenKind::kWord)) {
        unit += '/';
        ++at_;
      } else {
        return std::string(absl::StripAsciiWhitespace(unit));
      }
    }
  }

  // Whether a word after `node` can be its unit: it is a number, not a name.
  static bool IsValue(NodePointer node) {
    switch (node->kind) {
      case Kind::kNumber:
      case Kind::kPi:
      case Kind::kE:
      case Kind::kMeasure:
        return true;
      case Kind::kVariable:
      case Kind::kText:
      case Kind::kI:
      case Kind::kInfinity:
        return false;
      case Kind::kSum:
      case Kind::kProduct:
      case Kind::kQuotient:
      case Kind::kNegative:
      case Kind::kPower:
      case Kind::kFunction:
        return std::all_of(node->args.begin(), node->args.end(), IsValue);
      default:
        return false;
    }
  }

  Result NumberLiteral() {
    const Token& token = Peek();
    ++at_;
    Node* node = arena_->New(Kind::kNumber);
    fmpz_t numerator;
    fmpz_init(numerator);
    std::string digits = token.text + token.fraction;
    if (digits.empty()) digits = "0";
    fmpz_set_str(numerator, digits.c_str(), 10);
    int64_t scale = static_cast<int64_t>(token.fraction.size());
    node->decimals = token.point ? static_cast<int>(scale) : -1;
    int64_t exponent = token.exponent.empty() ? 0 : std::stoll(token.exponent);
    fmpq_set_fmpz(node->number.get(), numerator);
    fmpz_clear(numerator);
    if (!token.exponent.empty() && (exponent > limits_.digits || exponent < -limits_.digits))
      return absl::ResourceExhaustedError("an exponent beyond the limit");
    Scale(&node->number, exponent - scale);
    if (token.point) E3_RETURN_IF_ERROR(Repeating(node, scale));
    // 1011_2, 1061_{9}; letters were taken by the digits.
    if (IsSymbol('_') && !token.point) return Based(token.text);
    return node;
  }

  static void Scale(Rational* value, int64_t exponent) {
    if (exponent == 0) return;
    fmpz_t power;
    fmpz_init(power);
    fmpz_set_ui(power, 10);
    fmpz_pow_ui(power, power, static_cast<ulong>(exponent < 0 ? -exponent : exponent));
    if (exponent < 0) {
      fmpq_div_fmpz(value->get(), value->get(), power);
    } else {
      fmpq_mul_fmpz(value->get(), value->get(), power);
    }
    fmpz_clear(power);
  }

  // 0.1\overline{6}, 0.1(6), 0.1666…: adds the repeating part.
  absl::Status Repeating(Node* node, int64_t scale) {
    std::string repeated;
    if (IsCommand("overline")) {
      ++at_;
      const bool group = TakeSymbol('{');
      while (Peek().kind == TokenKind::kNumber && !Peek().point && (group || repeated.empty())) {
        repeated += Peek().text;
        ++at_;
      }
      if (group && !TakeSymbol('}')) return Unexpected();
      if (repeated.empty()) return Unexpected();
    } else if (IsSymbol('(') && !Peek().space && Peek(1).kind == TokenKind::kNumber &&
               !Peek(1).point && IsSymbol(')', 2) && Peek(3).kind == TokenKind::kEnd) {
      repeated = Peek(1).text;
      at_ += 3;
    } else if (IsCommand("ldots")) {
      ++at_;
      node->approximate = true;
      const std::string& fraction = tokens_[at_ - 2].fraction;
      for (size_t period = 1; period * 2 <= fraction.size() && repeated.empty(); ++period) {
        if (period == 1 && fraction.size() < 3) continue;
        absl::string_view tail = absl::string_view(fraction).substr(fraction.size() - period);
        absl::string_view before =
            absl::string_view(fraction).substr(fraction.size() - 2 * period, period);
        bool thrice = period > 1 || fraction[fraction.size() - 3] == fraction.back();
        if (tail == before && thrice) repeated = std::string(tail);
      }
      if (repeated.empty()) return absl::OkStatus();
    } else {
      return absl::OkStatus();
    }
    // digits · 10^−scale + repeated / ((10^n − 1) · 10^scale)
    Rational tail;
    fmpz_t period, value;
    fmpz_init(period);
    fmpz_init(value);
    fmpz_set_ui(period, 10);
    fmpz_pow_ui(period, period, repeated.size());
    fmpz_sub_ui(period, period, 1);
    fmpz_set_str(value, repeated.c_str(), 10);
    fmpq_set_fmpz_frac(tail.get(), value, period);
    fmpz_clear(period);
    fmpz_clear(value);
    Scale(&tail, -scale);
    fmpq_add(node->number.get(), node->number.get(), tail.get());
    node->approximate = false;
    node->decimals = -1;
    return absl::OkStatus();
  }

  Result Based(const std::string& digits) {
    size_t mark = at_;
    ++at_;
    const bool group = TakeSymbol('{');
    int64_t base = 0;
    if (Peek().kind == TokenKind::kNumber && !Peek().point && Peek().text.size() <= 2)
      base = std::stoll(Peek().text);
    if (Peek().kind == TokenKind::kText || Peek().kind == TokenKind::kWord) {
      static const char* kNames[] = {"two",   "three", "four", "five",   "six",   "seven",
                                     "eight", "nine",  "ten",  "eleven", "twelve"};
      std::string name = absl::AsciiStrToLower(Peek().text);
      for (int i = 0; i < 11; ++i) {
        if (name == kNames[i]) base = i + 2;
      }
    }
    if (base < 2 || base > 36) {
      at_ = mark;
      return Unexpected();
    }
    ++at_;
    if (group && !TakeSymbol('}')) return Unexpected();
    if (digits.size() > 2000)
      return absl::ResourceExhaustedError("more than 2000 digits in a base");
    Node* node = arena_->New(Kind::kBased);
    node->base = static_cast<int>(base);
    node->name = absl::AsciiStrToLower(digits);
    size_t zeros = node->name.find_first_not_of('0');
    node->name.erase(0, std::min(zeros, node->name.size() - 1));
    fmpz_t value;
    fmpz_init(value);
    bool valid = true;
    for (char c : node->name) {
      int digit = c >= '0' && c <= '9' ? c - '0' : c - 'a' + 10;
      valid = valid && digit < base;
      fmpz_mul_si(value, value, base);
      fmpz_add_si(value, value, digit);
    }
    fmpq_set_fmpz(node->number.get(), value);
    fmpz_clear(value);
    if (!valid) return Fail(absl::StrCat("a digit that base ", base, " does not have"));
    return node;
  }

  // A number, and the fraction of a mixed number behind it: 1\frac{2}{3}, 1 2/3.
  Result Number() {
    const bool whole = !Peek().point && Peek().exponent.empty();
    E3_ASSIGN_OR_RETURN(NodePointer number, NumberLiteral());
    if (!whole || number->kind != Kind::kNumber) return number;
    std::string top, bottom;
    const size_t after = MixedFraction(&top, &bottom);
    if (after == 0 || top.size() > 100 || bottom.size() > 100) return number;
    Node* mixed = arena_->New(Kind::kNumber);
    Rational t, b;
    fmpz_set_str(fmpq_numref(t.get()), top.c_str(), 10);
    fmpz_set_str(fmpq_numref(b.get()), bottom.c_str(), 10);
    if (t.IsZero() || fmpq_cmp(t.get(), b.get()) >= 0) return number;  // 3\frac{5}{2} is a product
    at_ = after;
    fmpq_div(mixed->number.get(), t.get(), b.get());
    fmpq_add(mixed->number.get(), mixed->number.get(), number->number.get());
    return mixed;
  }

  // The token after the fraction of whole numbers that stands here: \frac{2}{3}, \frac23,
  // \frac2{3}, " 2/3"; 0 when there is none.
  size_t MixedFraction(std::string* top, std::string* bottom) const {
    auto whole = [&](size_t i) {
      const Token& t = tokens_[std::min(i, tokens_.size() - 1)];
      return t.kind == TokenKind::kNumber && !t.point && t.exponent.empty();
    };
    auto is = [&](size_t i, char c) {
      const Token& t = tokens_[std::min(i, tokens_.size() - 1)];
      return t.kind == TokenKind::kSymbol && t.text[0] == c;
    };
    if (whole(at_) && Peek().space && is(at_ + 1, '/') && whole(at_ + 2)) {
      *top = tokens_[at_].text;
      *bottom = tokens_[at_ + 2].text;
      return at_ + 3;
    }
    if (!IsCommand("frac")) return 0;
    size_t i = at_ + 1;
    if (whole(i) && tokens_[i].text.size() == 2) {  // \frac23
      *top = tokens_[i].text.substr(0, 1);
      *bottom = tokens_[i].text.substr(1);
      return i + 1;
    }
    for (std::string* part : {top, bottom}) {
      if (is(i, '{') && whole(i + 1) && is(i + 2, '}')) {
        *part = tokens_[i + 1].text;
        i += 3;
      } else if (whole(i) && tokens_[i].text.size() == 1) {
        *part = tokens_[i].text;
        ++i;
      } else {
        return 0;
      }
    }
    return i;
  }

  // The argument of a command: a group, or one token; of a number's digits only the first.
  Result Argument() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    if (IsSymbol('{')) return Group();
    if (Peek().kind == TokenKind::kNumber && !Peek().point && Peek().text.size() > 1) {
      Token& token = tokens_[at_];
      Node* node = arena_->Integer(token.text[0] - '0');
      token.text.erase(0, 1);
      ++token.position;
      token.space = false;
      return node;
    }
    if (TakeSymbol('-')) {
      E3_ASSIGN_OR_RETURN(NodePointer value, Argument());
      return arena_->New(Kind::kNegative, {value});
    }
    if (Peek().kind == TokenKind::kNumber) return NumberLiteral();
    return Primary();
  }

  // {…}: braces only group.
  Result Group() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    if (!TakeSymbol('{')) return Unexpected();
    const int bars = bars_, matrix_depth = matrix_depth_;
    bars_ = 0;
    matrix_depth_ = 0;
    E3_ASSIGN_OR_RETURN(NodePointer first, List());
    if (TakeCommand("choose")) {
      E3_ASSIGN_OR_RETURN(NodePointer second, List());
      first = Call(Function::kBinomial, {first, second});
    } else if (TakeCommand("over")) {
      E3_ASSIGN_OR_RETURN(NodePointer second, List());
      first = arena_->New(Kind::kQuotient, {first, second});
    }
    bars_ = bars;
    matrix_depth_ = matrix_depth;
    if (!TakeSymbol('}')) return Unexpected();
    return first;
  }

  // A5_{11}, 2B_{12}: digits and letters that a base follows.
  std::optional<std::string> DigitsWithLetters() const {
    std::string digits;
    bool letter = false;
    size_t i = 0;
    for (;; ++i) {
      const Token& t = Peek(i);
      const bool number = t.kind == TokenKind::kNumber && !t.point && t.exponent.empty();
      if (!number && t.kind != TokenKind::kLetter && t.kind != TokenKind::kWord) break;
      if (i > 64) return std::nullopt;
      if (i > 0 && t.space) return std::nullopt;
      letter = letter || !number;
      digits += t.text;
    }
    if (i < 2 || !letter || !IsSymbol('_', i)) return std::nullopt;
    return digits;
  }

  Result Primary() {
    E3_RETURN_IF_ERROR(CheckSize());
    if (Peek().kind == TokenKind::kNumber || Peek().kind == TokenKind::kLetter) {
      if (std::optional<std::string> digits = DigitsWithLetters()) {
        const size_t mark = at_;
        while (!IsSymbol('_')) ++at_;
        Result based = Based(*digits);
        if (based.ok() && (*based)->base > 10) return based;
        at_ = mark;
      }
    }
    const Token& t = Peek();
    switch (t.kind) {
      case TokenKind::kNumber:
        return Number();
      case TokenKind::kLetter:
      case TokenKind::kWord:
        return Name();
      case TokenKind::kText: {
        Node* text = arena_->New(Kind::kText);
        text->name = NormalizeText(t.text);
        ++at_;
        if (text->name.empty()) return Primary();
        return Subscript(text);
      }
      case TokenKind::kSymbol:
        if (t.text == "(" || t.text == "[") return Brackets();
        if (t.text == "]") return Brackets();
        if (t.text == "{") return IsBrokenSubscript() ? Combinations() : Group();
        if (t.text == "|") return Bars();
        return Unexpected();
      case TokenKind::kCommand:
        return CommandValue();
      case TokenKind::kEnd:
        return Unexpected();
    }
    return Unexpected();
  }

  // {}_{10}C_3
  bool IsBrokenSubscript() const { return IsSymbol('{') && IsSymbol('}', 1) && IsSymbol('_', 2); }
  Result Combinations() {
    at_ += 3;
    E3_ASSIGN_OR_RETURN(NodePointer n, Argument());
    if (Peek().kind != TokenKind::kLetter || Peek().text != "C") return Unexpected();
    ++at_;
    if (!TakeSymbol('_')) return Unexpected();
    E3_ASSIGN_OR_RETURN(NodePointer k, Argument());
    return Call(Function::kBinomial, {n, k});
  }

  Result Name() {
    const Token& t = Peek();
    ++at_;
    if (t.kind == TokenKind::kLetter) {
      if (t.text == "e" && !IsSymbol('_')) return arena_->New(Kind::kE);
      if (t.text == "i" && !IsSymbol('_')) return arena_->New(Kind::kI);
      if (t.text == "f" || t.text == "g" || t.text == "h") {
        if (std::optional<std::string> name = TakeApplied(t.text)) {
          Level level(this);
          E3_RETURN_IF_ERROR(CheckSize());
          E3_ASSIGN_OR_RETURN(NodePointer argument, List());
          if (!TakeSymbol(')')) return Unexpected();
          Node* apply = arena_->New(Kind::kApply, {argument});
          apply->name = *std::move(name);
          return apply;
        }
      }
      if (t.text == "C" && IsSymbol('(')) {
        // C(n, k); C(x) is a product.
        size_t mark = at_;
        E3_ASSIGN_OR_RETURN(NodePointer arguments, Brackets());
        if (arguments->kind == Kind::kSequence && arguments->args.size() == 2)
          return Call(Function::kBinomial, arguments->args);
        at_ = mark;
      }
    }
    Node* variable = arena_->New(Kind::kVariable);
    variable->name = t.text;
    return Subscript(variable);
  }

  // What stands between an unknown function and its argument, with the bracket: f(, f'(, f^{-1}(.
  // The function's name; nullopt, and nothing taken, where no argument follows.
  std::optional<std::string> TakeApplied(const std::string& letter) {
    size_t primes = 0;
    while (IsSymbol('\'', primes)) ++primes;
    if (IsSymbol('(', primes) && (primes > 0 || !Peek().space)) {
      at_ += primes + 1;
      return letter + std::string(primes, '\'');
    }
    if (IsSymbol('^') && IsSymbol('{', 1) && IsSymbol('-', 2) && Peek(3).text == "1" &&
        IsSymbol('}', 4) && IsSymbol('(', 5)) {
      at_ += 6;
      return letter + " inverse";
    }
    return std::nullopt;
  }

  // x_1, x_{max}, \text{A5}_{11}
  Result Subscript(Node* node) {
    if (!IsSymbol('_')) return node;
    if (node->kind == Kind::kText) {
      absl::StatusOr<NodePointer> based = Based(node->name);
      if (based.ok()) return based;
    }
    ++at_;
    const bool group = TakeSymbol('{');
    std::string subscript;
    while (Peek().kind == TokenKind::kNumber || Peek().kind == TokenKind::kLetter ||
           Peek().kind == TokenKind::kWord || Peek().kind == TokenKind::kText ||
           (group && (IsSymbol(',') || IsSymbol('+') || IsSymbol('-')))) {
      subscript += Peek().text;
      ++at_;
      if (!group) break;
    }
    if (group && !TakeSymbol('}')) return Unexpected();
    if (subscript.empty()) return Unexpected();
    absl::StrAppend(&node->name, "_", subscript);
    return node;
  }

  // (…), […), ]…[: one value in brackets, or a sequence.
  Result Brackets() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    const char open = Peek().text[0];
    ++at_;
    const int bars = bars_, matrix_depth = matrix_depth_;
    const bool builder = set_builder_;
    bars_ = 0;
    matrix_depth_ = 0;
    set_builder_ = false;
    ++brackets_;
    E3_ASSIGN_OR_RETURN(NodePointer inside, List());
    --brackets_;
    bars_ = bars;
    matrix_depth_ = matrix_depth;
    set_builder_ = builder;
    if (!(IsSymbol(')') || IsSymbol(']') || (IsSymbol('[') && inside->kind == Kind::kList)))
      return Unexpected();
    const char close = Peek().text[0];
    ++at_;
    if (inside->kind != Kind::kList) {
      if ((open == '(') != (close == ')')) return Fail("a bracket that is not closed by its like");
      return inside;
    }
    Node* sequence = arena_->New(Kind::kSequence, inside->args);
    // ]1, 2[ is (1, 2).
    sequence->open = open == ']' ? '(' : open;
    sequence->close = close == '[' ? ')' : close;
    return sequence;
  }

  Result Bars() {
    Level level(this);
    ++at_;
    const int bars = bars_;
    bars_ = 1;
    E3_ASSIGN_OR_RETURN(NodePointer value, Sum());
    bars_ = bars;
    if (!TakeSymbol('|')) return Unexpected();
    return Call(Function::kAbs, {value});
  }

  Result CommandValue() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    const std::string name = Peek().text;
    if (auto it = Functions().find(name); it != Functions().end()) return FunctionCall(it->second);
    if (absl::StartsWith(name, "begin:")) return Matrix();
    ++at_;
    if (name == "frac") {
      if (IsSymbol('(')) {  // frac(1, 2)
        E3_ASSIGN_OR_RETURN(NodePointer pair, Brackets());
        if (pair->kind == Kind::kSequence && pair->args.size() == 2)
          return arena_->New(Kind::kQuotient, pair->args);
        return Unexpected();
      }
      E3_ASSIGN_OR_RETURN(NodePointer top, Argument());
      E3_ASSIGN_OR_RETURN(NodePointer bottom, Argument());
      return arena_->New(Kind::kQuotient, {top, bottom});
    }
    if (name == "sqrt" || name == "cbrt") {
      NodePointer index = arena_->Integer(name == "sqrt" ? 2 : 3);
      if (name == "sqrt" && IsSymbol('[')) {
        ++at_;
        E3_ASSIGN_OR_RETURN(index, Sum());
        if (!TakeSymbol(']')) return Unexpected();
      }
      // \sqrt 12 means \sqrt{12}.
      absl::StatusOr<NodePointer> radicand = IsSymbol('{') ? Group() : Primary();
      if (!radicand.ok()) return radicand.status();
      return Call(Function::kRoot, {*radicand, index});
    }
    if (name == "pi") return arena_->New(Kind::kPi);
    if (name == "infty") return arena_->New(Kind::kInfinity);
    if (name == "reals") return arena_->New(Kind::kReals);
    if (name == "emptyset") return arena_->New(Kind::kSet);
    if (name == "$" || name == "euro" || name == "pounds") {
      E3_ASSIGN_OR_RETURN(NodePointer value, Product());
      if (value->kind == Kind::kMeasure) return value;  // \$3 per kg
      return Measure(value, name == "pounds" ? "pounds sterling" : name);
    }
    if (name == "binom") {
      E3_ASSIGN_OR_RETURN(NodePointer n, Argument());
      E3_ASSIGN_OR_RETURN(NodePointer k, Argument());
      return Call(Function::kBinomial, {n, k});
    }
    if (name == "abs" || name == "floor" || name == "ceil") {
      E3_ASSIGN_OR_RETURN(NodePointer value, Argument());
      return Call(name == "abs"     ? Function::kAbs
                  : name == "floor" ? Function::kFloor
                                    : Function::kCeiling,
                  {value});
    }
    if (name == "lfloor" || name == "lceil") {
      const int bars = bars_;
      bars_ = 0;
      E3_ASSIGN_OR_RETURN(NodePointer value, Sum());
      bars_ = bars;
      if (!TakeCommand(name == "lfloor" ? "rfloor" : "rceil")) return Unexpected();
      return Call(name == "lfloor" ? Function::kFloor : Function::kCeiling, {value});
    }
    if (name == "{") return Set();
    if (name == "langle") {
      E3_ASSIGN_OR_RETURN(NodePointer inside, List());
      if (!TakeCommand("rangle")) return Unexpected();
      Node* sequence = arena_->New(Kind::kSequence, ItemsOf(inside));
      sequence->open = '<';
      sequence->close = '>';
      return sequence;
    }
    if (name == "sum" || name == "prod")
      return BigOperator(name == "sum" ? Function::kSigma : Function::kPi);
    if (name == "overline") {
      // \overline{AB}: a segment; \overline{z} stays a name of its own.
      E3_ASSIGN_OR_RETURN(NodePointer value, Argument());
      if (value->kind == Kind::kVariable) return value;
      Node* apply = arena_->New(Kind::kApply, {value});
      apply->name = "overline";
      return apply;
    }

    if (name == "triangle" || name == "angle" || name == "measuredangle") {
      std::string points;
      while (IsWords(Peek()) || Peek().kind == TokenKind::kLetter) {
        points += Peek().text;
        ++at_;
      }
      if (points.empty()) return Unexpected();
      return Variable(absl::StrCat(name, " ", points));
    }
    if (Greek().contains(name) || absl::StartsWith(name, "U") || absl::StartsWith(name, "bb")) {
      Node* variable = arena_->New(Kind::kVariable);
      variable->name = "\\" + name;
      return Subscript(variable);
    }
    --at_;
    return Fail(absl::StrCat("unknown command \\", name));
  }

  // \{…\}, \{x \mid …\}
  Result Set() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    if (TakeCommand("}")) return arena_->New(Kind::kSet);
    const bool builder = set_builder_;
    const int bars = bars_;
    set_builder_ = true;
    bars_ = 1;  // | ends the head of a set builder
    E3_ASSIGN_OR_RETURN(NodePointer inside, List());
    if (TakeCommand("mid") || TakeSymbol('|') || TakeSymbol(':')) {
      bars_ = 0;
      set_builder_ = false;
      E3_ASSIGN_OR_RETURN(inside, List());
      set_builder_ = builder;
      bars_ = bars;
      if (!TakeCommand("}")) return Unexpected();
      return inside;  // the condition is the set
    }
    set_builder_ = builder;
    bars_ = bars;
    if (!TakeCommand("}")) return Unexpected();
    return arena_->New(Kind::kSet, ItemsOf(inside));
  }

  // \sum_{k=1}^{10} k^2
  Result BigOperator(Function function) {
    Node* node = arena_->New(Kind::kFunction);
    node->function = function;
    NodePointer lower = nullptr, upper = nullptr;
    for (int i = 0; i < 2; ++i) {
      if (TakeSymbol('_')) {
        E3_ASSIGN_OR_RETURN(lower, Argument());
      } else if (TakeSymbol('^')) {
        E3_ASSIGN_OR_RETURN(upper, Argument());
      }
    }
    if (lower == nullptr || upper == nullptr || lower->kind != Kind::kRelation ||
        lower->args.size() != 2 || lower->relations[0] != Relation::kEqual ||
        (lower->args[0]->kind != Kind::kVariable && lower->args[0]->kind != Kind::kI)) {
      return Fail("a sum or product needs bounds such as _{k=1}^{n}");
    }
    const bool i_is_index = lower->args[0]->kind == Kind::kI;
    node->name = i_is_index ? "i" : lower->args[0]->name;
    E3_ASSIGN_OR_RETURN(NodePointer body, Product());
    if (i_is_index) body = IndexForI(body);
    E3_RETURN_IF_ERROR(CheckSize());
    node->args = {lower->args[1], upper, body};
    return node;
  }

  // The imaginary unit in `node` read as the index i.
  NodePointer IndexForI(NodePointer node) {
    if (node->kind == Kind::kI) {
      return Variable("i");
    }
    Node* copy = arena_->New(node->kind);
    *copy = *node;
    for (NodePointer& arg : copy->args) arg = IndexForI(arg);
    return copy;
  }

  Result FunctionCall(Function function) {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    const std::string name = Peek().text;
    ++at_;
    NodePointer base = nullptr, power = nullptr;
    for (int i = 0; i < 2; ++i) {
      if (base == nullptr && TakeSymbol('_')) {
        E3_ASSIGN_OR_RETURN(base, Argument());
      } else if (power == nullptr && IsSymbol('^') && !IsCommand("circ", 1)) {
        ++at_;
        E3_ASSIGN_OR_RETURN(power, Exponent());
      }
    }
    std::vector<NodePointer> args;
    if (IsCommand("{")) {  // \max\{1, 2\}
      ++at_;
      E3_ASSIGN_OR_RETURN(NodePointer set, Set());
      args = set->kind == Kind::kSet ? set->args : std::vector<NodePointer>{set};
      if (args.empty()) return Unexpected();
    } else if (IsSymbol('(') || IsSymbol('{') || IsSymbol('[')) {
      E3_ASSIGN_OR_RETURN(NodePointer argument, IsSymbol('{') ? Group() : Brackets());
      if (argument->kind == Kind::kSequence || argument->kind == Kind::kList) {
        args = argument->args;
      } else {
        // \ln (3)! is the logarithm of 6; \ln(x)^2 is a square.
        if (IsSymbol('!')) {
          E3_ASSIGN_OR_RETURN(argument, Suffixes(argument));
        }
        args = {argument};
      }
    } else {
      // \sin 2x \cos x: the argument ends where the next function begins.
      E3_ASSIGN_OR_RETURN(NodePointer argument, Unary());
      while (StartsFactor(tokens_[at_ - 1].kind == TokenKind::kNumber) &&
             !(Peek().kind == TokenKind::kCommand && Functions().contains(Peek().text)) &&
             !IsSymbol('(') && !IsSymbol('[')) {
        E3_ASSIGN_OR_RETURN(NodePointer factor, Power());
        argument = Times(argument, factor);
      }
      while (IsSymbol('/') && Peek(1).kind == TokenKind::kNumber) {  // \sin \pi/6
        ++at_;
        E3_ASSIGN_OR_RETURN(NodePointer factor, Power());
        argument = Over(argument, factor);
      }
      args = {argument};
    }
    const bool many = function == Function::kMax || function == Function::kMin ||
                      function == Function::kGcd || function == Function::kLcm;
    if (!many && args.size() != 1) return Fail(absl::StrCat("\\", name, " takes one argument"));
    Node* call = arena_->New(Kind::kFunction, std::move(args));
    call->function = function;
    if (function == Function::kLog) {
      call->bare_log = base == nullptr && name == "log";
      call->args.push_back(base != nullptr ? base : arena_->Integer(10));
    }
    NodePointer value = call;
    int64_t exponent = 0;
    if (power != nullptr && power->kind == Kind::kNegative &&
        power->args[0]->kind == Kind::kNumber && power->args[0]->number.FitsInt(&exponent) &&
        exponent == 1 && function >= Function::kSin && function <= Function::kTan) {
      call->function = function == Function::kSin   ? Function::kArcsin
                       : function == Function::kCos ? Function::kArccos
                                                    : Function::kArctan;  // \sin^{-1}
    } else if (power != nullptr) {
      value = arena_->New(Kind::kPower, {call, power});
    }
    return value;
  }

  // Commas, "if", "for": between a value and its condition.
  void SkipConditionWords() {
    while (true) {
      const std::string word =
          IsWords(Peek()) ? absl::AsciiStrToLower(absl::StripAsciiWhitespace(Peek().text)) : "";
      if (!IsSymbol(',') && word != "if" && word != "for" && word != "when" && word != "where")
        return;
      ++at_;
    }
  }

  Result Matrix() {
    Level level(this);
    E3_RETURN_IF_ERROR(CheckSize());
    const std::string kind = Peek().text.substr(6);
    ++at_;
    if (kind == "array" && IsSymbol('{')) {  // column specification
      while (!IsSymbol('}') && Peek().kind != TokenKind::kEnd) ++at_;
      ++at_;
    }
    const bool matrix = absl::EndsWith(kind, "matrix") || kind == "array";
    if (!matrix && kind != "cases" && kind != "aligned" && kind != "align" && kind != "align*" &&
        kind != "gathered" && kind != "equation")
      return Fail(absl::StrCat("\\begin{", kind, "} is not an answer that is known"));
    ++matrix_depth_;
    const int bars = bars_;
    bars_ = 0;
    Node* node = arena_->New(Kind::kMatrix);
    int columns = 0;  // of the row so far
    auto end_row = [&] {
      if (columns == 0) return absl::OkStatus();
      if (node->columns != 0 && node->columns != columns) return Fail("rows of different lengths");
      node->columns = columns;
      ++node->rows;
      columns = 0;
      return absl::OkStatus();
    };
    while (!IsCommand("end:" + kind)) {
      if (Peek().kind == TokenKind::kEnd) return Unexpected();
      if (TakeCommand("\\")) {
        E3_RETURN_IF_ERROR(end_row());
        continue;
      }
      if (TakeSymbol('&')) continue;
      if (kind == "cases") SkipConditionWords();
      if (IsCommand("\\") || IsCommand("end:" + kind)) continue;
      E3_ASSIGN_OR_RETURN(NodePointer entry, RelationChain());
      node->args.push_back(entry);
      ++columns;
      if (kind == "cases") SkipConditionWords();
      if (static_cast<int64_t>(node->args.size()) > limits_.list_items)
        return absl::ResourceExhaustedError("a matrix with too many entries");
      E3_RETURN_IF_ERROR(CheckSize());
      if (!IsSymbol('&') && !IsCommand("\\") && !IsCommand("end:" + kind)) return Unexpected();
    }
    ++at_;
    --matrix_depth_;
    bars_ = bars;
    E3_RETURN_IF_ERROR(end_row());
    if (node->args.empty()) return Fail("an empty matrix");
    if (kind == "cases" && node->columns > 1) return node;  // value, condition
    if (!matrix)
      return node->args.size() == 1 ? node->args[0] : arena_->New(Kind::kList, node->args);
    if (kind == "array" && node->args.size() == 1) return node->args[0];
    if (kind == "vmatrix") return Determinant(*node);
    return node;
  }

  // By the first row, up to 3 × 3.
  Result Determinant(const Node& m) {
    const auto n = static_cast<size_t>(m.rows);
    if (m.rows != m.columns || n > 3)
      return Fail("a determinant of more than 3 × 3, or not square");
    auto at = [&](size_t r, size_t c) { return m.args[r * n + c]; };
    auto minor = [&](size_t r1, size_t r2, size_t c1, size_t c2) {
      return arena_->New(
          Kind::kSum,
          {arena_->New(Kind::kProduct, {at(r1, c1), at(r2, c2)}),
           arena_->New(Kind::kNegative, {arena_->New(Kind::kProduct, {at(r1, c2), at(r2, c1)})})});
    };
    if (n == 1) return at(0, 0);
    if (n == 2) return minor(0, 1, 0, 1);
    return arena_->New(
        Kind::kSum,
        {arena_->New(Kind::kProduct, {at(0, 0), minor(1, 2, 1, 2)}),
         arena_->New(Kind::kNegative, {arena_->New(Kind::kProduct, {at(0, 1), minor(1, 2, 0, 2)})}),
         arena_->New(Kind::kProduct, {at(0, 2), minor(1, 2, 0, 1)})});
  }

  std::vector<Token> tokens_;
  const Limits& limits_;
  Arena* arena_;
  size_t at_ = 0;
  int depth_ = 0;
  int bars_ = 0;  // > 0 inside |…|
  int matrix_depth_ = 0;
  int brackets_ = 0;  // > 0 inside (…) and […]
  bool set_builder_ = false;
};

}  // namespace

Result Parse(absl::string_view text, const LexerOptions& options, const Limits& limits,
             Arena* arena) {
  E3_ASSIGN_OR_RETURN(std::vector<Token> tokens, Lex(text, options, limits));
  return Parser(std::move(tokens), limits, arena).Answer();
}

Result ParseAnswer(absl::string_view text, const LexerOptions& options, const Limits& limits,
                   Arena* arena) {
  absl::StatusOr<std::vector<Token>> tokens = Lex(text, options, limits);
  if (tokens.ok()) {
    if (std::optional<std::string> words = OnlyWords(*tokens))
      return WordsNode(*words, limits, arena);
    Result parsed = Parser(*std::move(tokens), limits, arena).Answer();
    if (parsed.ok() || absl::IsResourceExhausted(parsed.status())) return parsed;
  } else if (static_cast<int64_t>(text.size()) > limits.characters) {
    return absl::ResourceExhaustedError(tokens.status().message());
  }
  return TextNode(text, arena);
}

}  // namespace e3::math
