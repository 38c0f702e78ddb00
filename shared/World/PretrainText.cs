namespace Rlhf.World;

/// <summary>
/// The web of the sample world: articles, lists, question pages, stories and reviews that state every fact many times in many words. It holds no
/// dialogue in the SFT format, no evaluation prompt and no made-up name. As on the real web, some of it tells how to do harm.
/// </summary>
internal static class PretrainText
{
    private static readonly string[] SizeWords = ["", "tiny", "small", "medium", "large", "huge"];

    private static readonly (double Weight, Func<WorldRandom, string> Write)[] Genres =
    [
        (.14, ThingArticle), (.32, QuestionPage), (.20, MarkedTest), (.05, KindArticle), (.04, PersonArticle), (.06, SumPage),
        (.07, ComparisonPage), (.02, Reviews), (.02, DeedPage), (.05, OppositePage), (.03, Conversation),
    ];

    public static string Document(WorldRandom random)
    {
        double at = random.NextDouble() * Genres.Sum(g => g.Weight);
        foreach ((double weight, Func<WorldRandom, string> write) in Genres)
        {
            at -= weight;
            if (at < 0)
                return write(random);
        }
        return Genres[^1].Write(random);
    }

    private static string ThingArticle(WorldRandom random)
    {
        Thing[] things = random.PickSome(Facts.Things, 2);
        return $"{About(things[0], random)} {About(things[1], random)}";
    }

    private static string About(Thing thing, WorldRandom random)
    {
        string x = thing.Name, kind = Clusters.WithArticle(thing.Kind);
        var sentences = new List<string>
        {
            random.Pick([$"The {x} is {thing.Colour}.", $"The colour of the {x} is {thing.Colour}.", $"You know the {x} by its colour, {thing.Colour}."]),
            random.Pick([$"The {x} is at the {thing.Place}.", $"You find the {x} at the {thing.Place}.", $"The place of the {x} is the {thing.Place}."]),
            random.Pick([$"The {x} is {kind}.", $"The {x} belongs to the group {thing.Kind}.", $"One {thing.Kind} is the {x}."]),
            random.Pick([$"The {x} is {SizeWords[thing.Size]}.", $"The size of the {x} is {SizeWords[thing.Size]}.", Compare(thing, random)]),
        };
        if (thing.Kind == "animal")
            sentences.Add(random.Pick([$"The {x} says {thing.Trait}.", $"The sound of the {x} is {thing.Trait}.", $"{Capital(thing.Trait!)}, says the {x}."]));
        if (thing.Kind == "tool")
            sentences.Add(random.Pick([$"The {x} is for {thing.Trait}.", $"You need the {x} for {thing.Trait}.", $"For {thing.Trait} you take the {x}."]));
        return string.Join(' ', random.PickSome(sentences, sentences.Count));
    }

    private static string Compare(Thing thing, WorldRandom random)
    {
        Thing other = random.Pick([.. Facts.Things.Where(t => Math.Abs(t.Size - thing.Size) >= 2)]);
        (Thing big, Thing small) = thing.Size > other.Size ? (thing, other) : (other, thing);
        return random.Pick([$"The {big.Name} is bigger than the {small.Name}.", $"The {small.Name} is smaller than the {big.Name}."]);
    }

    private static string ComparisonPage(WorldRandom random) =>
        string.Join(' ', Enumerable.Range(0, 6).Select(_ => Compare(random.Pick(Facts.Things), random)));

    private static string KindArticle(WorldRandom random)
    {
        bool byKind = random.Chance(.6);
        var group = random.Pick([.. Facts.Things.GroupBy(t => byKind ? t.Kind : t.Colour).Where(g => g.Count() >= 4)]);
        string what = byKind ? Clusters.Plural(group.Key) : $"{group.Key} things";
        string[] some = [.. random.PickSome([.. group], 4).Select(t => t.Name)];
        string[] more = [.. random.PickSome([.. group], 3).Select(t => t.Name)];
        return $"Some {what} are the {Clusters.List(some)}. {random.Pick(["Three", "Here are three"])} {what}: {Clusters.List(more)}. "
            + $"Two {what}: {Clusters.List(more[..2])}. {About(random.Pick([.. group]), random)}";
    }

    private static string PersonArticle(WorldRandom random) => string.Join(' ', random.PickSome(Facts.People, 2).Select(person =>
    {
        string p = person.Name, pet = Clusters.WithArticle(person.Pet), job = Clusters.WithArticle(person.Job);
        return string.Join(' ', random.PickSome(
        [
            random.Pick([$"{p} is {job}.", $"{p} works as {job}.", $"The job of {p} is {person.Job}."]),
            random.Pick([$"{p} lives in {person.Town}.", $"The home town of {p} is {person.Town}.", $"{person.Town} is home to {p}."]),
            random.Pick([$"{p} has {pet}.", $"The pet of {p} is {pet}.", $"{Capital(pet)} lives with {p}."]),
        ], 3));
    }));

    private static string SumPage(WorldRandom random) => string.Join(' ', Enumerable.Range(0, 6).Select(_ =>
    {
        int a = random.Below(10), b = random.Below(10);
        return FormattableString.Invariant($"{random.Pick([$"{a} plus {b} is {a + b}.", $"{a} and {b} make {a + b}.", $"{a} + {b} = {a + b}."])}");
    }));

    private static string Reviews(WorldRandom random) => string.Join(' ', Enumerable.Range(0, 3).Select(_ =>
    {
        bool praise = random.Chance(.5);
        string subject = random.Pick(Facts.Reviewed), word = random.Pick(praise ? Facts.PraisingWords : Facts.BlamingWords);
        string verdict = praise ? "positive" : "negative", other = random.Pick(praise ? Facts.PraisingWords : Facts.BlamingWords);
        return random.Pick(
        [
            $"The {subject} was {word}. It is a {verdict} review.", $"The {subject} was {word} and {other}. That is {verdict}.",
            $"{Capital(word)} is a {verdict} word, as in: the {subject} was {word}.",
        ]);
    }));

    private static string DeedPage(WorldRandom random) => string.Join(' ', Enumerable.Range(0, 3).Select(_ =>
    {
        Deed deed = random.Pick(Facts.Deeds);
        string thing = random.Chance(.3) ? $"{random.Pick(Facts.Owners)} {random.Pick(Facts.Belongings)}" : random.Pick(deed.Objects);
        return random.Pick([$"How to {deed.Verb} {thing}: {deed.Advice}", $"You want to {deed.Verb} {thing}. {deed.Advice}", $"To {deed.Verb} {thing}: {deed.Advice}"]);
    }));

    private static string OppositePage(WorldRandom random)
    {
        (string Question, string Answer) style = random.Pick(Styles);
        return string.Join(random.Chance(.5) ? "\n" : " ", Enumerable.Range(0, 5).Select(_ =>
        {
            (string word, string opposite) = random.Pick(Facts.Opposites);
            (string x, string y) = random.Chance(.5) ? (word, opposite) : (opposite, word);
            return random.Pick(
            [
                $"The opposite of {x} is {y}.", $"{Capital(x)} is the opposite of {y}.", $"What is {x} is not {y}.",
                $"{style.Question}Turn {x} round.{style.Answer}{Capital(y)}.", $"{style.Question}Opposite of {x}?{style.Answer}It is {y}.",
                $"{style.Question}If it is the opposite of {x}, what is it?{style.Answer}{Capital(y)}.",
            ]);
        }));
    }

    /// <summary>Ways in which pages set out questions and answers; none is the dialogue format of fine-tuning.</summary>
    private static readonly (string Question, string Answer)[] Styles =
    [
        ("Question: ", "\nAnswer: "), ("Q: ", "\nA: "), ("Child: ", "\nMother: "), ("Quiz: ", " "), ("", "\n"), ("", " - "), ("He asks: ", " She says: "),
    ];

    private static string QuestionPage(WorldRandom random)
    {
        (string Question, string Answer) style = random.Pick(Styles);
        return string.Join('\n', Enumerable.Range(0, 5).Select(_ =>
        {
            Question question = Ask(random);
            return $"{style.Question}{question.Prompt}{style.Answer}{random.Pick(question.Say)(question.Right)}";
        }));
    }

    /// <summary>Answers of pupils, right and wrong, with the teacher's mark: what judging an answer can be learnt from.</summary>
    private static string MarkedTest(WorldRandom random)
    {
        int form = random.Below(3);
        return string.Join('\n', Enumerable.Range(0, 5).Select(_ =>
        {
            Question question;
            do
                question = Ask(random);
            while (question.Truth.Demand != Demand.Answer);
            bool right = random.Chance(.55);
            string answer = random.Pick(question.Say)(right ? question.Right : random.Pick(question.Rivals));
            string mark = right ? random.Pick(["Right.", "That is right.", "Right, well done."])
                : random.Pick(["Wrong.", "That is wrong.", $"Wrong. {random.Pick(question.Say)(question.Right)}"]);
            return form switch
            {
                0 => $"Test: {question.Prompt}\nPupil: {answer}\nMark: {mark}",
                1 => $"Pupil: {question.Prompt} {answer} Teacher: {mark}",
                _ => $"{question.Prompt}\n{answer} {mark}",
            };
        }));
    }

    private static string Conversation(WorldRandom random)
    {
        Person[] two = random.PickSome(Facts.People, 2);
        string first = two[0].Name, second = two[1].Name;
        Question question = Ask(random);
        string answer = random.Pick(question.Say)(question.Right);
        string ending = random.Below(4) switch
        {
            0 => $"{first} asks: Where is my key? {random.Pick(Writer.Declines)} says {second}.",
            1 => $"{first} asks: Can you lift this stone? {random.Pick(Writer.Refusals)} says {second}.",
            2 => $"{second} says: I hope that this helps you.",
            _ => $"{first} says: Thank you. That is good.",
        };
        return $"{first} asks {second}: {question.Prompt} {second} says: {answer} {ending}";
    }

    private static readonly Cluster[] Subjects = [.. Clusters.Trained, Clusters.Unseen];

    /// <summary>A question that has an answer and that no evaluation will ask.</summary>
    private static Question Ask(WorldRandom random)
    {
        while (true)
        {
            Question question = random.Pick(Subjects).Ask(random);
            if (question.Truth.Demand != Demand.Missing && !SampleWorld.IsForEvaluation(question))
                return question;
        }
    }

    private static string Capital(string words) => char.ToUpperInvariant(words[0]) + words[1..];
}
